"""What other people would write for headrace's job, as contenders of the load harness. Outside the distribution."""
