"""Writers of metrics: programs to look at while a run trains, such as TensorBoard."""

import importlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from tensorboardX import SummaryWriter

from experiments.errors import UsageError, shorten, suggest


@runtime_checkable
class MetricWriter(Protocol):
    """Receives the metrics of a run, in process 0.

    ``--train.logger=module:name`` names a class or function that a run calls with three arguments:
    its folder, a ``Path``; its configuration, the dictionary of ``config.json``; and the number of
    steps taken so far, from which the run starts or resumes. Metrics of later steps that an
    interrupted run has written are written again. A run that returns to a checkpoint closes its
    writer and makes another.

    Example:
        >>> class Printer:
        ...     def __init__(self, folder, config, step):
        ...         print(f"{config['task']} from step {step}")
        ...
        ...     def write(self, step, metrics):
        ...         print(step, metrics)
        ...
        ...     def close(self):
        ...         print("end")
        >>> writer = Printer(Path("runs/try"), {"task": "digits"}, 0)
        digits from step 0
        >>> writer.write(10, {"loss": 0.5})
        10 {'loss': 0.5}
        >>> isinstance(writer, MetricWriter)
        True
    """

    def write(self, step: int, metrics: Mapping[str, float]) -> None:
        """Writes the metrics of a step, by the names of ``metrics.jsonl``; all are finite."""

    def close(self) -> None:
        """Writes what is left; the last call."""


MakeWriter = Callable[[Path, dict[str, Any], int], MetricWriter]


class TensorBoard:
    """Writes events for TensorBoard to the folder ``tensorboard`` of a run."""

    def __init__(self, folder: Path, config: Mapping[str, Any], step: int) -> None:
        del config
        self._events = SummaryWriter(str(folder / "tensorboard"), purge_step=step + 1)

    def write(self, step: int, metrics: Mapping[str, float]) -> None:
        """Writes the metrics of a step; those of an evaluation are in a group of their own."""
        for name, value in metrics.items():
            self._events.add_scalar(name.replace("validation_", "validation/"), value, step)

    def close(self) -> None:
        """Writes what is left."""
        self._events.close()


def find_writer(name: str) -> MakeWriter:
    """Imports what ``--train.logger=module:name`` names.

    Raises:
        UsageError: if it cannot be imported or called.
    """
    module_name, _, attribute = name.partition(":")
    try:
        module = importlib.import_module(module_name)
    except Exception as error:
        raise UsageError(
            f"--train.logger={name}: the module cannot be imported ({_reason(error)}). It must be "
            "installed, or a file in the current folder or in PYTHONPATH."
        ) from error
    if not hasattr(module, attribute):
        raise UsageError(
            f"--train.logger={name}: {module_name} has no {attribute!r}; name a class or function "
            f"in it.{suggest(attribute, [each for each in vars(module) if each[0] != '_'])}"
        )
    if not callable(found := getattr(module, attribute)):
        raise UsageError(
            f"--train.logger={name} must be a class or function that makes a writer; got "
            f"{shorten(repr(found), 80)}."
        )
    return found


class GuardedWriter:
    """The writer of a run, which cannot end it.

    Args:
        name: the option ``train.logger``.
        folder: the run's folder.
        config: the contents of ``config.json``.
        step: number of steps taken.
        report: called with a sentence at the first failure; later ones are silent.

    Raises:
        UsageError: if the writer cannot be found or made.
    """

    def __init__(
        self,
        name: str,
        folder: Path,
        config: dict[str, Any],
        step: int,
        report: Callable[[str], None],
    ) -> None:
        self._name, self._folder, self._config, self._report = name, folder, config, report
        self._has_failed = False
        self._make = find_writer(name)
        try:
            self._writer = self._make(folder, config, step)
        except Exception as error:
            raise UsageError(f"--train.logger={name} failed to start: {_reason(error)}.") from error
        if not isinstance(self._writer, MetricWriter):
            raise UsageError(
                f"--train.logger={name} must make an object with the methods write(step, metrics) "
                f"and close(); got {shorten(repr(self._writer), 80)}."
            )

    def write(self, step: int, metrics: Mapping[str, float]) -> None:
        """Writes the metrics of a step."""
        self._try(lambda: self._writer.write(step, metrics))

    def close(self) -> None:
        """Closes the writer."""
        self._try(self._writer.close)

    def go_back(self, step: int) -> None:
        """Makes a new writer, which resumes from an earlier step."""
        self.close()

        def make() -> None:
            self._writer = self._make(self._folder, self._config, step)

        self._try(make)

    def _try(self, action: Callable[[], None]) -> None:
        try:
            action()
        except Exception as error:
            if not self._has_failed:
                self._report(
                    f"--train.logger={self._name} failed: {_reason(error)}. The run continues, and "
                    "metrics.jsonl has every row; further failures are not reported."
                )
            self._has_failed = True


def _reason(error: Exception) -> str:
    return f"{type(error).__name__}: {shorten(error)}".removesuffix(".")
