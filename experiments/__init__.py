"""Training, evaluation and recipes on top of :mod:`s5jax`."""
