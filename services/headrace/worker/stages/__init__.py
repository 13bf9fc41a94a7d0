"""The stages of an answer: fetch, batch, decode, infer, encode, publish, commit."""
