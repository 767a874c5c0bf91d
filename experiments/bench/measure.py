"""One measurement of ``--suite=gpu``.

``python -m experiments.bench.measure`` takes a job as JSON and prints what it measured: a program
that crashes, hangs or fills the memory ends its own process only, and the peak of the memory is
that of one program.
"""

import dataclasses
import json
import sys
from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from experiments.bench.contestants import CONTESTANTS, Size
from experiments.bench.hlo import traffic
from experiments.bench.memory import peak_so_far
from experiments.bench.profiler import profiled_bytes
from experiments.bench.programs import Case, make_layer_program, step_config
from experiments.bench.timing import forward, functional, interleaved_medians
from experiments.bench.training import Step
from experiments.config import Config
from experiments.devices.mesh import make_mesh, replicated
from experiments.errors import shorten
from experiments.training.setup import make_setup

ROUNDS = 5


@dataclasses.dataclass(frozen=True, kw_only=True)
class Job:
    """Something to measure of a program."""

    kind: Literal["time", "values", "profile"]
    """time: time and memory; values: deviations from float64; profile: bytes that the hardware
    counts."""
    case: Case

    def __str__(self) -> str:
        return f"{self.kind:<8}{self.case}"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Measured:
    """What was measured of a program, or why nothing was."""

    job: Job
    algorithm: str | None = None
    """The algorithm of a layer, where the case says ``auto``."""
    seconds: float | None = None
    """Median time of a run [s]."""
    bound_s: float | None = None
    """Time in which the device copies as many bytes [s]."""
    moved: int | None = None
    """Bytes that kernels read and write, counted in the text of the program."""
    profiled: float | None = None
    """Bytes that pass through the memory, counted by the hardware."""
    temporary: int | None = None
    """Bytes of memory besides arguments and results, by the compiler's plan."""
    peak: int | None = None
    """Largest number of bytes in use in the process, including the compiler's trials."""
    launches: int | None = None
    """Kernels."""
    tokens_per_s: float | None = None
    """Time steps of all sequences of a train step per second."""
    outputs: float | None = None
    """Largest deviation of the outputs, relative to the largest output."""
    gradients: float | None = None
    """Largest deviation of a gradient, relative to the largest value of that gradient."""
    failure: str | None = None
    """Why nothing was measured."""

    @property
    def times_bound(self) -> float | None:
        """Time as a multiple of its bound by bytes."""
        return self.seconds / self.bound_s if self.seconds and self.bound_s else None

    def __str__(self) -> str:
        if self.failure:
            return f"{self.job}{self.failure}"
        parts = [f"{self.job}{self.algorithm or '':<12}"]
        if self.seconds is not None and self.bound_s is not None:
            parts.append(f"{1e3 * self.seconds:10.3f} ms, bytes {1e3 * self.bound_s:.3f} ms")
        if self.outputs is not None:
            parts.append(f"outputs {self.outputs:.1e}, gradients {self.gradients:.1e}")
        if self.profiled is not None and self.moved is not None:
            parts.append(f"profiler {self.profiled / 1e6:,.0f} MB, text {self.moved / 1e6:,.0f} MB")
        return "".join(parts)


def measure(job: Job, mesh: Mesh, size: Size, recipe: Config | None = None) -> Measured:
    """Measures a program on the device of a mesh.

    Args:
        job: what to measure.
        mesh: one device.
        size: of a layer, except that the case has the length.
        recipe: of a train step; by default that of the paper.

    Returns:
        The measurement, or the reason of a failure.
    """
    try:
        if job.kind == "values":
            return _values(job, mesh, size)
        return _time(job, mesh, size, recipe)
    except Exception as error:
        return Measured(job=job, failure=_explain(error))


def _time(job: Job, mesh: Mesh, size: Size, recipe: Config | None) -> Measured:
    case, tokens, algorithm = job.case, 0, job.case.algorithm
    if case.mode == "step":
        setup = make_setup(step_config(case, recipe), mesh)
        tokens = case.batch * setup.task.length
        run = step = Step(setup)
        compiled = step.compiled
    else:
        program = make_layer_program(case, mesh, size)
        algorithm = program.algorithm
        arguments = jax.device_put(_fill(program.arguments), replicated(mesh))
        with jax.set_mesh(mesh):
            run = forward(program.f, *arguments)
        compiled = run.compiled
    seconds = interleaved_medians({"": run}, rounds=ROUNDS)[""]
    counted = traffic(compiled.as_text() or "")
    memory: Any = compiled.memory_analysis()
    return Measured(
        job=job,
        algorithm=algorithm,
        seconds=seconds,
        moved=counted.moved,
        profiled=profiled_bytes(run, seconds) if job.kind == "profile" else None,
        temporary=memory.temp_size_in_bytes,
        peak=peak_so_far(),
        launches=counted.launches,
        tokens_per_s=tokens / seconds if tokens else None,
    )


def _values(job: Job, mesh: Mesh, size: Size) -> Measured:
    """Compares a layer, on its device, with the layer in float64 on the CPU."""
    case = job.case
    program = make_layer_program(case, mesh, size)
    (parameters, u), weights = _fill(program.arguments)
    arguments = jax.device_put((parameters, u, weights), replicated(mesh))
    with jax.set_mesh(mesh):
        found = jax.jit(_outputs_and_gradients(program.layer))(*arguments)
    layer = CONTESTANTS[case.name].make(size._replace(L=case.length))
    exact, _ = functional(layer, type(layer).__call__)
    with jax.enable_x64(True), jax.default_device(jax.devices("cpu")[0]):
        arguments = jax.tree.map(_in_float64, (parameters, u, weights))
        expected = jax.jit(_outputs_and_gradients(exact))(*arguments)
        outputs, *gradients = jax.tree.leaves(jax.tree.map(_deviation, found, expected))
    if not np.isfinite([outputs, *gradients]).all():
        raise RuntimeError("outputs or gradients are not finite")
    return Measured(job=job, algorithm=program.algorithm, outputs=outputs, gradients=max(gradients))


def _outputs_and_gradients(run: Callable[..., jax.Array]) -> Callable[..., Any]:
    def f(parameters: Any, u: jax.Array, weights: jax.Array) -> tuple[jax.Array, Any]:
        y, pull = jax.vjp(run, parameters, u)
        return y, pull(weights)

    return f


def _fill(arguments: Any) -> Any:
    """Draws values where there are shapes only; constants would need less power than data do."""
    rng = np.random.default_rng(0)

    def draw(x: Any) -> jax.Array:
        drawn = isinstance(x, jax.ShapeDtypeStruct)
        return jnp.asarray(rng.standard_normal(x.shape, "float32"), x.dtype) if drawn else x

    return jax.tree.map(draw, arguments)


def _in_float64(x: jax.Array) -> jax.Array:
    kind = "complex128" if jnp.iscomplexobj(x) else "float64"
    return jnp.asarray(np.asarray(x).astype(kind))


def _deviation(found: jax.Array, expected: jax.Array) -> float:
    exact = np.asarray(expected)
    largest = np.max(np.abs(np.asarray(found).astype(exact.dtype) - exact))
    return float(largest / (np.max(np.abs(exact)) or 1))


def _explain(error: Exception) -> str:
    if "RESOURCE_EXHAUSTED" in str(error):
        return "out of memory"
    first = str(error).strip().partition("\n")[0]
    return shorten(f"{type(error).__name__}: {first}")


if __name__ == "__main__":
    request = json.load(sys.stdin)
    requested = Job(kind=request["kind"], case=Case(**request["case"]))
    measured = measure(requested, make_mesh("data=1", batch_size=1), Size())
    print(json.dumps(dataclasses.asdict(measured)))
