"""The partitions that a worker owns: who gave them, where it resumes, and what waits in each."""
