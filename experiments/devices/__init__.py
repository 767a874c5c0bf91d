"""Meshes of devices, and many processes."""
