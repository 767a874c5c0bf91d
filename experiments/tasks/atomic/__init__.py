"""The atomic tasks of the DLR paper."""
