"""The demo of the learning path: labels become versions, which the workers take up under a running stream."""
