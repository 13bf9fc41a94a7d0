"""The trainer service: it reads labels, decides when to train, and sees a training through to an alias."""
