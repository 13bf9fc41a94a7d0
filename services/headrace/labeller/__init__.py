"""Labels by teachers, for the texts that the log brings."""
