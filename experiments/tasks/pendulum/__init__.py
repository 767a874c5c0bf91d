"""The pendulum, observed at irregular times."""
