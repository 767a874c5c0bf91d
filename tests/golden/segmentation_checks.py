import numpy as np

from experiments.tasks.pathfinder.segmentation import segment


def check_segmentation(golden):
    size = golden.options["resolution"]
    for k in range(4):
        paths = np.zeros((2, size, size), bool)
        for path, rows, cols in zip(paths, golden[f"rows{k}"], golden[f"cols{k}"], strict=True):
            path[rows, cols] = True
        target = segment(paths, golden[f"markers{k}"])
        np.testing.assert_array_equal(target.ravel(), golden[f"target{k}"])
