"""Checkpoints: the last two, the best, and the one to go back to; written in the background."""

import concurrent.futures
import contextlib
import dataclasses
import json
import logging
import zlib
from collections.abc import Callable, Generator, Sequence
from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp
from orbax.checkpoint.checkpoint_managers import preservation_policy

from experiments.distributed import from_main, is_main
from experiments.errors import RunError, shorten
from experiments.results import write_json
from experiments.steps import Leaves

CHECKSUMS = "checksums.json"


@dataclasses.dataclass
class Progress:
    """What a run remembers besides its arrays."""

    best: dict[str, Any] | None = None
    """``step`` and validation measures of the best checkpoint so far."""
    wall_s: float = 0.0
    """Time spent up to the checkpoint, over all starts [s]."""
    due: int | None = None
    """The last checkpoint that no signal asked for, to which a run goes back."""
    rollbacks: list[dict[str, int]] = dataclasses.field(default_factory=list)
    """For each time that the run went back: the non-finite ``step``, and ``back_to`` which."""

    @property
    def left_out(self) -> int:
        """Batches that the run has left out: those between the two steps of each rollback."""
        return sum(rollback["step"] - rollback["back_to"] for rollback in self.rollbacks)


class Checkpoints:
    """The checkpoints of a run; a context manager.

    Beside each lie the checksums of its files, written last: a checkpoint without them, or with
    others, is damaged and is not even opened. Of many processes all save and restore together, and
    process 0 writes the checksums and judges by them.

    Args:
        folder: where they lie, one folder a step.
        names: a name for each array of the state.
        like: arrays of the state's shapes, types and places.
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
            # Else threads wait minutes for a folder that cannot be made, after the run has failed.
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
            with contextlib.suppress(Exception):  # has been told
                self._manager.close()
            self._background.shutdown()

    def save(self, step: int, leaves: Leaves) -> None:
        """Begins to write a checkpoint, unless the step has one; waits for the one before.

        The arrays may be donated or changed as soon as this returns.

        Raises:
            RunError: if it, or the one before, cannot be written.
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
        """Returns when the last checkpoint is complete.

        Raises:
            RunError: if it cannot be written.
        """
        if self._writing is not None:
            (step, written), self._writing = self._writing, None
            with self._writing_errors(step):
                written.result()

    def check(self) -> None:
        """Raises a RunError if writing has failed by now."""
        if self._writing is not None and self._writing[1].done():
            self.wait()

    def restore(self, step: int) -> tuple[Leaves, Progress]:
        """Reads the checkpoint of a step.

        Raises:
            RunError: if it cannot be read.
        """
        self.wait()
        items = ocp.args.Composite(
            arrays=ocp.args.StandardRestore(self._like), progress=ocp.args.JsonRestore()
        )
        with _as_run_error(f"read the checkpoint of step {step}"):
            self._check_arrays(step)
            restored = self._manager.restore(step, args=items)
            if (held := int(restored["arrays"].get("step", step))) != step:
                raise ValueError(f"it is that of step {held}, so give its folder that name")
            leaves = [restored["arrays"][name] for name in self._names]
            return leaves, Progress(**restored["progress"])

    def restore_newest(
        self, report: Callable[[str], None], *, until: int | None = None
    ) -> tuple[int, Leaves] | None:
        """Reads the newest intact checkpoint, and takes over its progress.

        Args:
            report: told about each damaged checkpoint, which is removed.
            until: the last step to take; checkpoints of later ones are removed.

        Returns:
            The step and the arrays, or None if there is no checkpoint.

        Raises:
            RunError: if an intact checkpoint cannot be read.
        """
        self.wait()
        steps = sorted(map(int, self._manager.all_steps()), reverse=True)
        for step in [] if until is None else [step for step in steps if step > until]:
            self._manager.delete(step)
            steps.remove(step)
        n_damaged = from_main(self._count_damaged(steps) if is_main() else 0)
        for step in steps[:n_damaged]:
            report(f"The checkpoint of step {step} is damaged; going on from the one before.")
            self._manager.delete(step)
        for step in steps[n_damaged:]:
            leaves, self.progress = self.restore(step)
            return step, leaves
        return None

    def _complete(self, step: int) -> None:
        """Waits for the files of a checkpoint, and adds the checksums."""
        self._manager.wait_until_finished()
        if is_main():
            write_json(self._folder / str(step) / CHECKSUMS, self._checksums(step))

    def _writing_errors(self, step: int) -> contextlib.AbstractContextManager[None]:
        return _as_run_error(f"write the checkpoint of step {step} to {self._folder}")

    def _count_damaged(self, steps: Sequence[int]) -> int:
        """How many come before the first that is intact."""
        return next((n for n, step in enumerate(steps) if self._is_intact(step)), len(steps))

    def _check_arrays(self, step: int) -> None:
        """Orbax would convert numbers, and leave threads behind where a shape does not fit."""
        folder = self._folder / str(step) / "arrays"
        found = ocp.StandardCheckpointHandler().metadata(folder).tree  # ty: ignore[invalid-argument-type]
        for name, like in self._like.items():
            held = found[name]
            if (held.shape, held.dtype) != (like.shape, like.dtype):
                raise ValueError(
                    f"`{name}` is {held.dtype} of shape {held.shape}, not {like.dtype} of "
                    f"{like.shape}"
                )

    def _checksums(self, step: int) -> dict[str, int]:
        folder = self._folder / str(step)
        files = sorted(path for path in folder.rglob("*") if path.is_file())
        return {
            str(path.relative_to(folder)): zlib.crc32(path.read_bytes())
            for path in files
            if path.name != CHECKSUMS
        }

    def _is_intact(self, step: int) -> bool:
        try:
            written = json.loads((self._folder / str(step) / CHECKSUMS).read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError):
            return False
        return written == self._checksums(step)


class _Manager(ocp.CheckpointManager):
    def reached_preemption(self, step: int) -> bool:
        """Leaves the question to the loop: JAX wants it asked with numbers that only rise."""
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
    """Orbax logs what it also raises, with the stack of each of its threads."""
    return "orbax" not in record.pathname


@contextlib.contextmanager
def _as_run_error(action: str) -> Generator[None]:
    """Whatever the storage raises becomes one sentence."""
    try:
        yield
    except Exception as error:
        cause = shorten(str(error).partition("\n")[0], 2000) or type(error).__name__
        raise RunError(f"Could not {action}: {cause}") from error
