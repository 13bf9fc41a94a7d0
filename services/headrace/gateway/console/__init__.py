"""The console: pages for the people who look after the log, the labels and the versions. Mounted by the gateway."""
