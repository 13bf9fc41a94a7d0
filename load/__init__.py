"""Load on a real cluster, and what came of it. Uses the wire, the client and the command line, as a user would."""
