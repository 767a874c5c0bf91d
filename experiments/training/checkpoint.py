"""Checkpoints, written in the background: the last two, the best, and the one to return to."""

import concurrent.futures
import contextlib
import dataclasses
import itertools
import json
import logging
import zlib
from collections.abc import Callable, Generator, Sequence
from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp
from orbax.checkpoint.checkpoint_managers import preservation_policy

from experiments.devices.distributed import from_main, is_main
from experiments.errors import RunError, shorten
from experiments.records import write_json
from experiments.training.steps import Leaves

CHECKSUMS = "checksums.json"


@dataclasses.dataclass
class Progress:
    """State of a run besides its arrays."""

    best: dict[str, Any] | None = None
    """``step`` and validation measures of the best checkpoint so far."""
    wall_s: float = 0.0
    """Time of the run up to the checkpoint, over all starts [s]."""
    due: int | None = None
    """Step of the last scheduled checkpoint, to which a run returns after a non-finite step."""
    rollbacks: list[dict[str, int]] = dataclasses.field(default_factory=list)
    """For each rollback the number ``step`` of the bad step, and the step of the checkpoint."""

    @property
    def skipped(self) -> int:
        """Number of skipped batches: from ``back_to`` to ``step`` of each rollback."""
        return sum(rollback["step"] - rollback["back_to"] for rollback in self.rollbacks)


class Checkpoints:
    """The checkpoints of a run; a context manager.

    Each folder also holds the checksums of its files, written last. A checkpoint without valid
    checksums is corrupted, and is not opened. All processes save and restore together; process 0
    writes and compares the checksums.

    ``names`` has a name for each array of the state, and ``like`` arrays of the same shapes, types
    and shardings.
    """

    def __init__(self, folder: Path, names: Sequence[str], like: Leaves) -> None:
        self.progress = Progress()
        self._folder = folder.resolve()
        self._names = names
        shapes = [jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding) for x in like]
        self._like = dict(zip(names, shapes, strict=True))
        options = ocp.CheckpointManagerOptions(
            preservation_policy=_LastTwoAndBest(self),
            cleanup_tmp_directories=True,
            single_host_load_and_broadcast=True,
            # Otherwise threads of a failed run wait minutes for a folder that cannot be created.
            async_options=ocp.AsyncOptions(create_directories_asynchronously=False),
        )
        logging.getLogger("absl").addFilter(_is_not_of_orbax)
        with _as_run_error(f"open the checkpoints in {folder}"):
            self._folder.mkdir(parents=True, exist_ok=True)
            self._manager = _Manager(self._folder, options=options)
        self._background = concurrent.futures.ThreadPoolExecutor(max_workers=1)
        self._writing: tuple[int, concurrent.futures.Future[None]] | None = None

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            with contextlib.nullcontext() if kind is None else contextlib.suppress(RunError):
                self.wait()
        finally:
            with contextlib.suppress(Exception):  # already reported
                self._manager.close()
            self._background.shutdown()

    def save(self, step: int, leaves: Leaves) -> None:
        """Starts writing a checkpoint, unless the step has one; waits for the previous one.

        The arrays may be donated or changed as soon as this returns.

        Raises:
            RunError: if this or the previous checkpoint cannot be written.
        """
        self.wait()
        if step in self._manager.all_steps():
            return
        items = ocp.args.Composite(
            arrays=ocp.args.StandardSave(dict(zip(self._names, leaves, strict=True))),
            progress=ocp.args.JsonSave(dataclasses.asdict(self.progress)),
        )
        with self._writing_errors(step):
            self._manager.save(step, args=items)
        self._writing = step, self._background.submit(self._complete, step)

    def wait(self) -> None:
        """Waits until the last checkpoint is complete.

        Raises:
            RunError: if it cannot be written.
        """
        if self._writing is not None:
            (step, written), self._writing = self._writing, None
            with self._writing_errors(step):
                written.result()

    def check(self) -> None:
        """Raises a RunError if writing has failed so far."""
        if self._writing is not None and self._writing[1].done():
            self.wait()

    def restore(self, step: int) -> tuple[Leaves, Progress]:
        """Reads the checkpoint of a step.

        Raises:
            RunError: if it cannot be read.
        """
        self.wait()
        with _as_run_error(f"read the checkpoint of step {step}"):
            stored = self._stored_names(step)
            like = {stored[name]: leaf for name, leaf in self._like.items()}
            items = ocp.args.Composite(
                arrays=ocp.args.StandardRestore(like), progress=ocp.args.JsonRestore()
            )
            restored = self._manager.restore(step, args=items)
            if (found := int(restored["arrays"].get("step", step))) != step:
                raise ValueError(f"it is the checkpoint of step {found}: rename its folder")
            leaves = [restored["arrays"][stored[name]] for name in self._names]
            return leaves, Progress(**restored["progress"])

    def restore_newest(
        self, report: Callable[[str], None], *, until: int | None = None
    ) -> tuple[int, Leaves] | None:
        """Reads the newest intact checkpoint and its progress; removes newer ones.

        Args:
            report: called with a sentence about each corrupted checkpoint.
            until: the last admissible step.

        Returns:
            The step and the arrays, or None if there is no checkpoint.

        Raises:
            RunError: if an intact checkpoint cannot be read.
        """
        self.wait()
        steps = sorted(map(int, self._manager.all_steps()), reverse=True)
        while steps and until is not None and steps[0] > until:
            self._manager.delete(steps.pop(0))
        corrupted = itertools.takewhile(lambda step: not self._is_intact(step), steps)
        n_corrupted = from_main(len(list(corrupted)) if is_main() else 0)
        for step in steps[:n_corrupted]:
            report(f"The checkpoint of step {step} is corrupted; using the one before.")
            self._manager.delete(step)
        for step in steps[n_corrupted:]:
            leaves, self.progress = self.restore(step)
            return step, leaves
        return None

    def _complete(self, step: int) -> None:
        """Waits for the files of a checkpoint, and writes their checksums."""
        self._manager.wait_until_finished()
        if is_main():
            write_json(self._folder / str(step) / CHECKSUMS, self._checksums(step))

    def _writing_errors(self, step: int) -> contextlib.AbstractContextManager[None]:
        return _as_run_error(f"write the checkpoint of step {step} to {self._folder}")

    def _stored_names(self, step: int) -> dict[str, str]:
        """Returns the name of each array in a checkpoint, after a check of shapes and types.

        Orbax would convert types, and leak threads if shapes differ.
        """
        folder = self._folder / str(step) / "arrays"
        found = ocp.StandardCheckpointHandler().metadata(folder).tree  # ty: ignore[invalid-argument-type]
        stored = {name: name if name in found else _earlier(name) for name in self._like}
        for name, like in self._like.items():
            array = found[stored[name]]
            if (array.shape, array.dtype) != (like.shape, like.dtype):
                raise ValueError(
                    f"`{name}` is {array.dtype} of shape {array.shape}, not {like.dtype} of "
                    f"{like.shape}"
                )
        return stored

    def _checksums(self, step: int) -> dict[str, int]:
        folder = self._folder / str(step)
        return {
            str(path.relative_to(folder)): zlib.crc32(path.read_bytes())
            for path in sorted(folder.rglob("*"))
            if path.is_file() and path.name != CHECKSUMS
        }

    def _is_intact(self, step: int) -> bool:
        try:
            written = json.loads((self._folder / str(step) / CHECKSUMS).read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError):
            return False
        return written == self._checksums(step)


def _earlier(name: str) -> str:
    """Returns the name of an array from before models had a backbone."""
    return name.replace("/backbone/", "/", 1)


class _Manager(ocp.CheckpointManager):
    def reached_preemption(self, step: int) -> bool:
        """Leaves this to the loop: JAX requires step numbers that only rise."""
        del step
        return False


class _LastTwoAndBest(preservation_policy.PreservationPolicy):
    def __init__(self, checkpoints: Checkpoints) -> None:
        self.checkpoints = checkpoints

    def should_preserve(
        self, checkpoints: Sequence[Any], *, context: preservation_policy.PreservationContext
    ) -> list[bool]:
        del context
        progress = self.checkpoints.progress
        keep = {checkpoint.step for checkpoint in checkpoints[-2:]} | {progress.due}
        keep |= {progress.best["step"]} if progress.best else set()
        return [checkpoint.step in keep for checkpoint in checkpoints]


def _is_not_of_orbax(record: logging.LogRecord) -> bool:
    """Filters Orbax's log of errors that it also raises, with the stacks of all its threads."""
    return "orbax" not in record.pathname


@contextlib.contextmanager
def _as_run_error(action: str) -> Generator[None]:
    """Raises a RunError of one sentence for every error of the storage."""
    try:
        yield
    except Exception as error:
        cause = shorten(str(error).partition("\n")[0], 2000) or type(error).__name__
        raise RunError(f"Could not {action}: {cause}") from error
