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
from experiments.tasks.density import DigitsDensity
from experiments.tasks.language import Chars
from experiments.tasks.language import LanguageTask as LanguageTask
from experiments.tasks.paths import Paths
from experiments.tasks.wikitext import WikiText103

TASKS: dict[str, type[Task]] = {
    "pathfinder": Paths,
    "pathx": Paths,
    "path256": Paths,
    "chars": Chars,
    "wikitext103": WikiText103,
    "digits_density": DigitsDensity,
}


def get_task(name: str) -> type[Task]:
    """The class of a task.

    Raises:
        UsageError: if there is no such task; lists the valid names and the nearest.
    """
    return pick("task", name, TASKS)
