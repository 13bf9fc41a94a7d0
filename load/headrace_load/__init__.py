"""An open-loop load harness from Kafka to Kafka. It uses the wire, the client and the command line, as a user would."""
