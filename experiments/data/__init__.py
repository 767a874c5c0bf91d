"""Data sets: how they get here, and how examples are read."""
