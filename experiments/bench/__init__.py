"""What is fast, measured: ``python -m experiments.bench [--suite=NAME]``."""
