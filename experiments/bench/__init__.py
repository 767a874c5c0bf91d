"""Benchmarks of speed and memory: ``python -m experiments.bench [--suite=NAME]``."""
