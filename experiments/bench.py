"""What is fast, measured: ``python -m experiments.bench [--json=FILE]``.

Each row is a ratio of two times, or of a time and its limit, taken in one run on one machine;
larger is better, and the target says how large it must be.
"""

import contextlib
import dataclasses
import io
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any

import jax
import jax.numpy as jnp
import tyro
from rich.console import Console
from rich.table import Table

import s5jax
from experiments.bench_pipelines import Rate, pipeline_rates
from experiments.build import Setup, prepare
from experiments.data import on_device, train_batches
from experiments.errors import run_command
from experiments.loop import fit
from experiments.mesh import make_mesh
from experiments.models import S5Options
from experiments.recipes import get_recipe
from experiments.results import device_name, environment, write_json
from experiments.tasks import DATA_DIR, Files

COMPILE_LIMIT_S = 15
HOST_LIMIT = 1.5


@dataclasses.dataclass(frozen=True)
class Row:
    """One figure; ``ratio`` should reach ``target``."""

    name: str
    ratio: float
    target: float
    detail: dict[str, dict[str, float]]


class PublishedS5(s5jax.S5):
    """S5 by the algorithm of its official code: complex, and Lambda spread over time.

    The same function as `s5jax.S5`, as a plain port of the published equations would compute it.
    """

    def two_sided(self, u: jax.Array, dt: jax.Array | float | None) -> jax.Array:
        """Both directions of a plain sequence, with `jax.lax.associative_scan`."""
        forward, backward = self.coefficients(dt), self.coefficients(dt, backward=True)
        B_bar = forward.Gamma[:, None] * forward.B
        C = jnp.concatenate([forward.C, backward.C], axis=1)

        def compose(
            p: tuple[jax.Array, jax.Array], q: tuple[jax.Array, jax.Array]
        ) -> tuple[jax.Array, jax.Array]:
            return q[0] * p[0], q[0] * p[1] + q[1]

        def one(u: jax.Array) -> jax.Array:
            Lambda_bar = forward.Lambda_bar * jnp.ones((u.shape[0], 1))
            elements = (Lambda_bar, jax.vmap(lambda u_t: B_bar @ u_t)(u))
            _, x = jax.lax.associative_scan(compose, elements)
            _, x_reverse = jax.lax.associative_scan(compose, elements, reverse=True)
            x = jnp.concatenate([x, x_reverse], axis=-1)
            return jax.vmap(lambda x_t: 2 * (C @ x_t).real)(x)

        return jax.vmap(one)(u) + self.D[...] * u


class PublishedOptions(S5Options):
    """S5's options, for the published algorithm."""

    layer = PublishedS5


def train_step_rows() -> Iterator[Row]:
    """The paper's Path-X train step, batch 1, against a port of the published algorithm."""
    config = get_recipe("pathx", "s5", "paper")
    config = dataclasses.replace(config, train=dataclasses.replace(config.train, batch_size=1))
    models = {"ours": config.model, "published": PublishedOptions(**vars(config.model))}
    mesh = make_mesh("data=1", batch_size=1)
    runs, compile_s, temporary_mb = {}, {}, {}
    for name, model in models.items():
        setup = prepare(dataclasses.replace(config, model=model), mesh)
        start = time.perf_counter()
        compiled, runs[name] = _compile(setup)
        compile_s[name] = time.perf_counter() - start
        memory: Any = compiled.memory_analysis()
        temporary_mb[name] = memory.temp_size_in_bytes / 1e6
    step_s = interleaved_medians(runs, repeats=5)
    yield Row("s5_train_step", step_s["published"] / step_s["ours"], 3, {"step_s": step_s})
    yield Row(
        "s5_train_memory",
        temporary_mb["published"] / temporary_mb["ours"],
        2,
        {"temporary_mb": temporary_mb},
    )
    yield Row("compile_time", COMPILE_LIMIT_S / compile_s["ours"], 1, {"compile_s": compile_s})


def host_overhead_row() -> Row:
    """Steps of the smoke preset in the training loop against the bare compiled step."""
    config = get_recipe("pathx", "s5", "smoke")
    short, long = 50, 550
    loop_s = {}
    for steps in (short, short, long):  # the first call warms everything up
        train = dataclasses.replace(
            config.train, steps=steps, log_every=100, eval_every=steps, checkpoint_every=steps
        )
        run = dataclasses.replace(config, train=train)
        with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
            start = time.perf_counter()
            fit(run, folder, mesh=make_mesh("data=1", batch_size=train.batch_size))
            loop_s[steps] = time.perf_counter() - start
    _, bare = _compile(prepare(run, make_mesh("data=1", batch_size=run.train.batch_size)))
    bare()
    start = time.perf_counter()
    for _ in range(long - short):
        bare()
    bare_s = (time.perf_counter() - start) / (long - short)
    in_loop_s = (loop_s[long] - loop_s[short]) / (long - short)
    return Row(
        "host_overhead",
        HOST_LIMIT * bare_s / in_loop_s,
        1,
        {"step_ms": {"loop": in_loop_s * 1e3, "bare": bare_s * 1e3}},
    )


def pipeline_row(rate: Rate) -> Row:
    """Examples per second and core against twice what a GPU takes at ten million steps a second."""
    return Row(f"{rate.task}_pipeline", rate.ratio, 1, {"examples_per_s": {"one core": rate.per_s}})


def interleaved_medians(runs: dict[str, Callable[[], None]], *, repeats: int) -> dict[str, float]:
    """Median seconds of each function; they take turns, so that a slow spell hits all of them."""
    times: dict[str, list[float]] = {name: [] for name in runs}
    for run in runs.values():
        run()
    for _ in range(repeats):
        for name, run in runs.items():
            start = time.perf_counter()
            run()
            times[name].append(time.perf_counter() - start)
    return {name: statistics.median(values) for name, values in times.items()}


def _compile(setup: Setup) -> tuple[jax.stages.Compiled, Callable[[], None]]:
    """The compiled train step, and a function that takes one step on always the same batch."""
    config = setup.config
    batches = train_batches(setup.task, seed=config.seed, batch_size=config.train.batch_size)
    batch = next(on_device(batches, setup.mesh))
    compiled = setup.steps.train.lower(setup.steps.initial, batch).compile()
    leaves = setup.steps.initial

    def step() -> None:
        nonlocal leaves
        leaves, _ = compiled(leaves, batch)
        jax.block_until_ready(leaves)

    return compiled, step


def main(
    json: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None,
    data_dir: Annotated[Path, tyro.conf.arg(metavar="DIR")] = DATA_DIR,
) -> None:
    """Measures speed and memory against references; takes a few minutes.

    Args:
        json: also write the rows to this file.
        data_dir: folder of the data sets; rows whose data are not there are left out.
    """
    rows = [
        *train_step_rows(),
        host_overhead_row(),
        *(
            Row(
                f"{rate.task}_pipeline", rate.ratio, 1, {"examples_per_s": {"one core": rate.per_s}}
            )
            for rate in pipeline_rates(Files(data_dir))
        ),
    ]
    device = device_name(make_mesh("data=1", batch_size=1))
    table = Table("name", "ratio", "target", "detail", title=f"{device}, larger is better")
    for row in rows:
        [(unit, values)] = row.detail.items()
        detail = ", ".join(f"{name} {value:.4g}" for name, value in values.items())
        table.add_row(row.name, f"{row.ratio:.2f}", f"{row.target:g}", f"{unit}: {detail}")
    Console().print(table)
    if json is not None:
        values = [dataclasses.asdict(row) for row in rows]
        write_json(json, {"device": device, **environment(), "rows": values})


if __name__ == "__main__":
    run_command(lambda: tyro.cli(main))
