"""ListOps, and ListOps-SubTrees."""
