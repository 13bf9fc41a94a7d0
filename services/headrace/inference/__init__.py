"""The worker: the stages of the answering path, a module each."""
