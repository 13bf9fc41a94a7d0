"""Fitting a network: the epoch loop, the losses of its two parts, and the settings of both."""
