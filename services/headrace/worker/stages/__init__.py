"""The stages of an answer, a module each: fetch, batch, decode, infer, encode, publish, commit."""
