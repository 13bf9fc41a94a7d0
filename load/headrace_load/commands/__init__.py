"""The commands of `headrace-load`; each module is imported when its command runs."""
