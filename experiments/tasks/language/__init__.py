"""Language models: bytes, words, pixels."""
