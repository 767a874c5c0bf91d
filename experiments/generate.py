"""``python -m experiments.generate``: samples from the model of a finished run."""

import dataclasses
import functools
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import tyro

import s5jax
from experiments.build import load_trained, task_for_prediction
from experiments.cli import FileFlags
from experiments.config import read_config
from experiments.errors import UsageError, blaming_options, check_not_negative, run_command
from experiments.files import UserPath, user_path
from experiments.process import set_up_process
from experiments.tasks import HERE, TASKS, Files, LanguageTask, get_task


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sampling:
    """How tokens are drawn."""

    n: Annotated[int | None, tyro.conf.arg(metavar="N")] = None
    """New tokens; without it, 200, or the rest of an image."""
    temperature: float = 1.0
    """Divides the logits; 0 always takes the likeliest token."""
    top_k: int | None = None
    """Draw among so many tokens; without it, among all."""
    top_p: float = 1.0
    """Draw among the likeliest tokens that together have this probability."""
    seed: int = 0
    """The seed of the draws."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class GenerateFlags(FileFlags, Sampling):
    """Continues prompts with a trained language model, of text or of pixels.

    Example: python -m experiments.generate --workdir=runs/chars-s5-cpu-seed0 --prompt="The "
    """

    workdir: Annotated[UserPath, tyro.conf.arg(metavar="DIR")]
    """Folder of the run."""
    prompt: Annotated[tyro.conf.UseAppendAction[tuple[str, ...]], tyro.conf.arg(metavar="TEXT")]
    """What to continue; may be given several times. Pixels are numbers separated by blanks."""


class Samples(NamedTuple):
    """What a model wrote, and how fast."""

    texts: list[str]
    """Prompts and their continuations."""
    tokens: int
    """New tokens of all prompts."""
    compile_s: float
    run_s: float
    """Reading the prompts, and all steps."""


def generate(
    workdir: str | Path, prompts: Sequence[str], sampling: Sampling, *, files: Files = HERE
) -> Samples:
    """Continues prompts with the model of a finished run.

    Args:
        workdir: the run's folder.
        prompts: texts, continued side by side in one batch.
        sampling: how tokens are drawn.
        files: where data sets lie.

    Returns:
        The texts and times.

    Raises:
        UsageError: if the folder holds no finished run of a language model, a prompt cannot be
            read, or an option is impossible.
    """
    workdir = user_path(workdir)
    config = read_config(workdir)
    if not issubclass(get_task(config.task), LanguageTask):
        valid = ", ".join(name for name, kind in TASKS.items() if issubclass(kind, LanguageTask))
        raise UsageError(
            f"The run in {workdir} has the task {config.task}, whose model predicts no tokens; "
            f"generate needs a run of one of {valid}."
        )
    if not prompts:
        raise UsageError("Say what to continue with --prompt=TEXT.")
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
    """New tokens ``(B, n)``, and the seconds to compile and to run."""
    sizes = np.array([len(row) for row in rows], np.int32)
    prompts = np.stack([np.pad(row, (0, sizes.max() - len(row))) for row in rows])
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


def main() -> None:
    """Reads the command line, samples, and prints the texts and the speed."""
    set_up_process()
    flags = tyro.cli(GenerateFlags, prog="python -m experiments.generate", use_underscores=True)
    samples = generate(flags.workdir, flags.prompt, flags, files=flags.files())
    print("\n\n".join(samples.texts))
    print(
        f"\n{samples.tokens:,} new tokens in {samples.run_s:.3g} s: "
        f"{samples.tokens / samples.run_s:,.0f} tokens/s, prompts included; "
        f"compiled before in {samples.compile_s:.3g} s."
    )


if __name__ == "__main__":
    run_command(main)
