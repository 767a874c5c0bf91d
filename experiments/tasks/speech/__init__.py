"""Speech Commands."""
