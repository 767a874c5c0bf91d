"""Generation of text and images by a trained language model."""

import dataclasses
import functools
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import s5jax
from experiments.config import read_config
from experiments.data.sources import DEFAULT_PATHS, Files
from experiments.errors import UsageError, blaming_options, check_not_negative
from experiments.files import user_path
from experiments.tasks import TASKS, LanguageTask, get_task
from experiments.training.finished import load_trained, task_for_prediction


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sampling:
    """Options for sampling tokens."""

    n: int | None = None
    """Number of new tokens; by default 200, or the rest of an image."""
    temperature: float = 1.0
    """Divisor of the logits; 0 selects the most likely token."""
    top_k: int | None = None
    """Sample from the k most likely tokens; by default from all."""
    top_p: float = 1.0
    """Sample from the most likely tokens that together have this probability."""
    seed: int = 0
    """Seed of the samples."""


class Samples(NamedTuple):
    """Generated texts, and the time to generate them."""

    texts: list[str]
    """The prompts with their continuations."""
    tokens: int
    """Number of new tokens of all prompts."""
    compile_s: float
    run_s: float
    """Time to read the prompts and generate all tokens."""


def generate(
    workdir: str | Path, prompts: Sequence[str], sampling: Sampling, *, files: Files = DEFAULT_PATHS
) -> Samples:
    """Continues prompts with the model of a finished run.

    Args:
        workdir: the run's folder.
        prompts: texts, continued side by side in one batch.
        sampling: options for sampling tokens.
        files: location of the data sets.

    Raises:
        UsageError: if the folder holds no finished run of a language model, a prompt cannot be
            read, or an option is impossible.
    """
    workdir = user_path(workdir)
    config = read_config(workdir)
    if not issubclass(get_task(config.task), LanguageTask):
        valid = ", ".join(name for name, kind in TASKS.items() if issubclass(kind, LanguageTask))
        raise UsageError(
            f"The run in {workdir} has the task {config.task}, whose model does not predict "
            f"tokens; generate needs a run of one of {valid}."
        )
    if not prompts:
        raise UsageError("There is no prompt: give the text to continue with --prompt=TEXT.")
    trained = load_trained(workdir)
    task: Any = task_for_prediction(config, files, trained)
    rows = [task.encode(prompt) for prompt in prompts]
    with blaming_options():
        check_not_negative(sampling, n=sampling.n or 0)
        new, compile_s, run_s = _continue(trained.model, rows, task.n_new, sampling)
    texts = [
        task.decode(np.concatenate([row, tokens])) for row, tokens in zip(rows, new, strict=True)
    ]
    return Samples(texts, new.size, compile_s, run_s)


def _continue(
    model: s5jax.LanguageModel, rows: list[np.ndarray], n_new: int, sampling: Sampling
) -> tuple[np.ndarray, float, float]:
    """Returns new tokens ``(B, n)``, and the seconds to compile and to run."""
    sizes = np.array([len(row) for row in rows], np.int32)
    longest = max(map(len, rows))
    prompts = np.stack([np.pad(row, (0, longest - len(row))) for row in rows])
    lengths = None if (sizes == sizes[0]).all() else jnp.asarray(sizes)
    sample = functools.partial(
        s5jax.generate,
        n=n_new if sampling.n is None else sampling.n,
        temperature=sampling.temperature,
        top_k=sampling.top_k,
        top_p=sampling.top_p,
    )
    arguments = {"lengths": lengths, "key": jax.random.key(sampling.seed)}
    start = time.perf_counter()
    compiled = jax.jit(sample).lower(model, jnp.asarray(prompts), **arguments).compile()
    compiled_at = time.perf_counter()
    new = jax.device_get(compiled(model, jnp.asarray(prompts), **arguments))
    return new, compiled_at - start, time.perf_counter() - compiled_at
