"""Archives of time series."""
