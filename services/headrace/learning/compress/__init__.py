"""The smallest artifact inside an accuracy budget: pruning, quantizing, and the search for how much of each."""
