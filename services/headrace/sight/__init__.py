"""What a person on call asks: how it stands, and whether all is set up right."""
