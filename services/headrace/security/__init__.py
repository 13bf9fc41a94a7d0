"""Keys, and folders that nobody else on the machine can put anything into."""
