"""The worker service: it answers requests. Never imports learning or torch."""
