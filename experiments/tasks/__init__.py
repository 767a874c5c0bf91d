"""The tasks by name."""

from experiments.errors import pick
from experiments.tasks._task import DATA_DIR as DATA_DIR
from experiments.tasks._task import HERE as HERE
from experiments.tasks._task import ArraySource as ArraySource
from experiments.tasks._task import Batch as Batch
from experiments.tasks._task import DataOptions as DataOptions
from experiments.tasks._task import Files as Files
from experiments.tasks._task import Head as Head
from experiments.tasks._task import Source as Source
from experiments.tasks._task import Split as Split
from experiments.tasks._task import Task as Task
from experiments.tasks._task import decimate as decimate
from experiments.tasks.arrays import Arrays
from experiments.tasks.atomic import ATOMIC
from experiments.tasks.density import DigitsDensity
from experiments.tasks.language import Chars
from experiments.tasks.language import LanguageTask as LanguageTask
from experiments.tasks.listops import ListOps, ListOpsSubTrees
from experiments.tasks.paths import Paths
from experiments.tasks.pendulum import Pendulum
from experiments.tasks.pixels import (
    ColourCifar,
    Digits,
    GreyCifar,
    Mnist,
    NoisyCifar,
    PermutedMnist,
)
from experiments.tasks.segmentation import Segmentation
from experiments.tasks.speech import Speech
from experiments.tasks.text import Papers, Reviews
from experiments.tasks.wikitext import WikiText103

TASKS: dict[str, type[Task]] = {
    "listops": ListOps,
    "text": Reviews,
    "retrieval": Papers,
    "image": GreyCifar,
    "pathfinder": Paths,
    "pathx": Paths,
    "path256": Paths,
    "scifar": ColourCifar,
    "noisy_scifar": NoisyCifar,
    "smnist": Mnist,
    "psmnist": PermutedMnist,
    "digits": Digits,
    "digits_density": DigitsDensity,
    "sc35": Speech,
    "sc10": Speech,
    **ATOMIC,
    "listops_subtrees": ListOpsSubTrees,
    "pathfinder_segmentation_128": Segmentation,
    "pathfinder_segmentation_256": Segmentation,
    "pathfinder_segmentation_512": Segmentation,
    "pendulum": Pendulum,
    "wikitext103": WikiText103,
    "chars": Chars,
    "arrays": Arrays,
}


def get_task(name: str) -> type[Task]:
    """The class of a task.

    Raises:
        UsageError: if there is no such task; lists the valid names and the nearest.
    """
    return pick("task", name, TASKS)
