"""The gate: a candidate against the champion, on the test rows and on the last real requests."""
