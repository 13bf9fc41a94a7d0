"""Pure decisions: no I/O, no clock of its own, no aiokafka."""
