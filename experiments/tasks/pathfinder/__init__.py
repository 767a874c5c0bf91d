"""Pathfinder, Path-X, Path-256, and their segmentation."""
