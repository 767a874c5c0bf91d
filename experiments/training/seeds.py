"""Runs of one configuration that differ in their seed."""

import statistics
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import jax

from experiments.config import Config
from experiments.devices.distributed import log_primary
from experiments.errors import InterruptedRun, RunError
from experiments.records import Results
from experiments.training.lock import FolderInUseError

Fit = Callable[[Config, Path], Results]
"""Trains a model in a folder, as `experiments.training.loop.fit` does."""


def fit_seeds(runs: Mapping[Path, Config], fit: Fit) -> list[Results]:
    """Trains runs that differ in their seed, one after another, and prints their mean.

    A run that another process is training is left to it, so the same command may be started several
    times. A run that fails does not keep the others from training.

    Args:
        runs: the configuration of each run, by its folder.
        fit: trains one of them.

    Returns:
        The results of the finished runs.

    Raises:
        RunError: if runs have failed; after the others.
        UsageError: as ``fit`` does, except for a folder in use.
        InterruptedRun: as ``fit`` does.
    """
    found: dict[int, Results] = {}
    failed: list[int] = []
    waiting = dict(runs)
    for last in (False, True):  # a run of another process may have ended in between
        for folder, config in list(waiting.items()):
            try:
                found[config.seed] = fit(config, folder)
            except FolderInUseError as error:
                if last:
                    log_primary(f"Seed {config.seed} is left out: {error}")
                continue
            except InterruptedRun as error:
                raise InterruptedRun(error.signal_number, None) from None
            except RunError as error:
                if jax.process_count() > 1:  # the others may have been lost
                    raise
                failed.append(config.seed)
                log_primary(f"Seed {config.seed} has failed: {error}")
            del waiting[folder]
    results = [found[seed] for seed in sorted(found)]
    if results:
        log_primary(describe_spread(results))
    if failed:
        seeds = ", ".join(map(str, failed))
        raise RunError(
            f"{len(failed)} of {len(runs)} runs failed (seeds {seeds}); the same command tries "
            "them again."
        )
    return results


def describe_spread(results: Sequence[Results]) -> str:
    """Returns the test value of the task's metric in one line: mean, deviation, each seed."""
    first = results[0]
    metric = first["metric"]
    values = [run["test"][metric] for run in results]
    each = ", ".join(f"{run['test'][metric]:.4f} (seed {run['seed']})" for run in results)
    head = f"{first['task']}, {first['model']}, {first['preset']}: test {metric}"
    return f"{head} {mean_and_deviation(values)} of {each}."


def mean_and_deviation(values: Sequence[float], *, digits: int = 4) -> str:
    """Formats a mean, with the standard deviation of a sample of several."""
    spread = f" ± {statistics.stdev(values):.{digits}f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.{digits}f}{spread}"
