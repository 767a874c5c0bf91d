"""The tasks by name."""

from experiments.errors import choose
from experiments.tasks._task import Head as Head
from experiments.tasks._task import Task as Task
from experiments.tasks._task import decimate as decimate
from experiments.tasks.archives.task import TSER, UEA
from experiments.tasks.arrays.task import Arrays as Arrays
from experiments.tasks.atomic.task import ATOMIC
from experiments.tasks.language.chars import Chars
from experiments.tasks.language.density import DigitsDensity
from experiments.tasks.language.task import LanguageTask as LanguageTask
from experiments.tasks.language.wikitext import WikiText103
from experiments.tasks.listops.task import ListOps, ListOpsSubTrees
from experiments.tasks.pathfinder.paths import Paths
from experiments.tasks.pathfinder.segmentation import Segmentation
from experiments.tasks.pendulum.task import Pendulum
from experiments.tasks.pixels import (
    ColourCifar,
    Digits,
    GreyCifar,
    Mnist,
    NoisyCifar,
    NoisyDigits,
    PermutedMnist,
)
from experiments.tasks.pretraining import Objective as Objective
from experiments.tasks.pretraining import Pretraining as Pretraining
from experiments.tasks.recall import AssociativeRecall
from experiments.tasks.series.informer import INFORMER
from experiments.tasks.series.task import Forecast as Forecast
from experiments.tasks.speech.task import Speech as Speech
from experiments.tasks.text import Papers, Reviews

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
    "noisy_digits": NoisyDigits,
    "digits_density": DigitsDensity,
    "sc35": Speech,
    "sc10": Speech,
    **ATOMIC,
    "listops_subtrees": ListOpsSubTrees,
    "pathfinder_segmentation_128": Segmentation,
    "pathfinder_segmentation_256": Segmentation,
    "pathfinder_segmentation_512": Segmentation,
    "associative_recall": AssociativeRecall,
    "pendulum": Pendulum,
    "wikitext103": WikiText103,
    "chars": Chars,
    "uea": UEA,
    "tser": TSER,
    "arrays": Arrays,
    "forecast": Forecast,
    **INFORMER,
}


def get_task(name: str) -> type[Task]:
    """Returns the class of a task.

    Raises:
        UsageError: if there is no such task; the message lists the valid names.
    """
    return choose("task", name, TASKS)
