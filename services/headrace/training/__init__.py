"""Training: from labelled texts to a network. Never imports inference; torch is imported by what fits, not here."""
