"""From labelled texts to an artifact: no service and no consumer group; what needs torch imports it."""
