"""Rows of ``--suite=compile``: what programs need on accelerators that are not here.

Nothing runs on them. Each case is compiled in a process of its own, ``python -m
experiments.bench.compiled`` with the case as its input, because a compilation can take minutes and
cannot be interrupted.
"""

import dataclasses
import json
import math
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from experiments.bench.contestants import CONTESTANTS, Size
from experiments.bench.hlo import traffic
from experiments.bench.targets import ENVIRONMENT, TARGETS, make_target_mesh, missing
from experiments.bench.timing import functional
from experiments.devices.mesh import by_example, replicated
from experiments.recipes import get_recipe
from experiments.training.setup import make_setup

LIMIT_S = 300
"""Longest compilation."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Case:
    """A program: one layer on a batch, or the train step of a recipe."""

    target: str
    name: str
    """A layer of `CONTESTANTS`, or a task."""
    mode: Literal["forward", "forward+backward", "step"]
    algorithm: str = "auto"
    dtype: Literal["float32", "bfloat16"] = "float32"
    batch: int = 8
    length: int = 16_384
    mesh: dict[str, int] = dataclasses.field(default_factory=lambda: {"data": 1})
    n_layers: int = 1

    def __str__(self) -> str:
        axes = ",".join(f"{axis}={n}" for axis, n in self.mesh.items())
        depth = f"{self.n_layers} layers, {axes}" if self.mode == "step" else self.algorithm
        return f"{self.target:<5}{self.name:<10}{self.mode:<17}{depth:<26}{self.dtype:<9}"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Compiled:
    """What a program needs on each device, or why there is none."""

    case: Case
    algorithm: str | None = None
    """The algorithm of a layer."""
    moved: int = 0
    """Bytes that kernels read and write."""
    floor: int = 0
    """Bytes of inputs and outputs, and of their gradients; 0 for a step."""
    temporary: int = 0
    """Bytes of memory besides arguments and results."""
    launches: int = 0
    """Kernels."""
    exchanged: dict[str, list[int]] = dataclasses.field(default_factory=dict)
    """Number and bytes of each kind of exchange between devices."""
    spilled: int | None = None
    """Bytes of registers that kernels for an NVIDIA GPU store in memory."""
    unknown_loops: int = 0
    """Loops whose body was counted once, because the program does not say how often it runs."""
    compile_s: float = 0.0
    """Time of the compilation on this machine [s]."""
    failure: str | None = None
    """Why there is no program."""

    def __str__(self) -> str:
        if self.failure:
            return f"{self.case}{self.failure}"
        share = f"{self.moved / self.floor:5.1f} floors" if self.floor else " " * 12
        exchanged = "".join(f", {n} {kind}" for kind, (n, _) in self.exchanged.items())
        spilled = f", {self.spilled} B spilled" if self.spilled else ""
        loops = f", {self.unknown_loops} loops counted once" if self.unknown_loops else ""
        return (
            f"{self.case}{self.algorithm or '':<12}{self.moved / 1e6:>9,.0f} MB moved {share}"
            f"{self.temporary / 1e6:>8,.0f} MB temporary {self.launches:>6} launches"
            f"{exchanged}{spilled}{loops}, compiled in {self.compile_s:.0f} s"
        )


def all_cases() -> Iterator[Case]:
    """Yields every layer on every target, forward and backward, and train steps of Path-X."""
    for target in TARGETS:
        for name in CONTESTANTS:
            for mode in ("forward", "forward+backward"):
                yield Case(target=target, name=name, mode=mode)
    for mode in ("forward", "forward+backward"):
        yield Case(target="h200", name="S5", mode=mode, algorithm="pallas")
        for name in ("S5", "LRU"):
            yield Case(target="h200", name=name, mode=mode, algorithm="associative")
    step: dict[str, Any] = {"name": "pathx", "mode": "step", "batch": 32}
    yield Case(target="h200", **step)
    yield Case(target="h200", **step, dtype="bfloat16")
    yield Case(target="h200", **step, n_layers=6)
    yield Case(target="h200", **step, n_layers=6, dtype="bfloat16")
    yield Case(target="v5e", **step, mesh={"data": 4})
    yield Case(target="v5e", **step, mesh={"data": 2, "seq": 2})


def compiled_rows() -> Iterator[Compiled]:
    """Compiles all cases, one after another."""
    for case in all_cases():
        yield compile_apart(case)


def compile_apart(case: Case, limit_s: float = LIMIT_S) -> Compiled:
    """Compiles a case in a process of its own."""
    if (reason := missing(case.target)) is not None:
        return Compiled(case=case, failure=f"skipped: {reason}")
    command = [sys.executable, "-m", "experiments.bench.compiled"]
    text = json.dumps(dataclasses.asdict(case))
    with tempfile.TemporaryDirectory() as dump:
        flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_dump_to={dump}"
        environment = os.environ | ENVIRONMENT | {"XLA_FLAGS": flags}
        try:
            done = subprocess.run(
                command,
                env=environment,
                input=text,
                timeout=limit_s,
                capture_output=True,
                text=True,
            )
        except subprocess.TimeoutExpired:
            return Compiled(case=case, failure=f"did not compile in {limit_s:.0f} s")
        if done.returncode:
            last = done.stderr.strip().splitlines()[-1:] or ["no message"]
            return Compiled(case=case, failure=f"does not compile: {last[0][:300]}")
        found = json.loads(done.stdout.splitlines()[-1])
        return Compiled(**found | {"case": case, "spilled": _spilled(Path(dump))})


def compile_case(case: Case) -> Compiled:
    """Compiles a case in this process, which has to have the variables of `ENVIRONMENT`."""
    mesh = make_target_mesh(case.target, case.mesh)
    lower = _lower_step if case.mode == "step" else _lower_layer
    lowered, algorithm, floor = lower(case, mesh)
    start = time.perf_counter()
    compiled = lowered.compile()
    seconds = time.perf_counter() - start
    memory: Any = compiled.memory_analysis()
    counted = traffic(compiled.as_text() or "")
    return Compiled(
        case=case,
        algorithm=algorithm,
        moved=counted.moved,
        floor=floor,
        temporary=memory.temp_size_in_bytes,
        launches=counted.launches,
        exchanged={kind: list(both) for kind, both in counted.exchanged.items()},
        unknown_loops=counted.unknown_loops,
        compile_s=seconds,
    )


def _lower_layer(case: Case, mesh: Mesh) -> tuple[jax.stages.Lowered, str, int]:
    dtype = jnp.dtype(case.dtype)
    options: dict[str, Any] = {} if case.algorithm == "auto" else {"algorithm": case.algorithm}
    size = Size(L=case.length)
    layer = CONTESTANTS[case.name].make(size, dtype=dtype, **options)
    run, parameters = functional(layer, type(layer).__call__)
    sharding = replicated(mesh)

    def absent(x: Any) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding)

    u = absent(jax.ShapeDtypeStruct((case.batch, case.length, size.H), dtype))
    parameters = jax.tree.map(absent, parameters)
    floor = 2 * math.prod(u.shape) * dtype.itemsize
    with jax.set_mesh(mesh):
        algorithm = layer.algorithm_for(case.length, case.batch)
        if case.mode == "forward":
            return jax.jit(run).lower(parameters, u), algorithm, floor
        y = jax.eval_shape(run, parameters, u)

        def loss(arguments: tuple[Any, Any], weights: jax.Array) -> jax.Array:
            return jnp.sum((weights * run(*arguments)).astype(jnp.float32))

        value_and_grad = jax.jit(jax.value_and_grad(loss))
        return value_and_grad.lower((parameters, u), absent(y)), algorithm, 2 * floor


def _lower_step(case: Case, mesh: Mesh) -> tuple[jax.stages.Lowered, None, int]:
    config = get_recipe(case.name, "s5", "paper")
    config = dataclasses.replace(
        config,
        model=dataclasses.replace(config.model, n_layers=case.n_layers),
        train=dataclasses.replace(config.train, precision=case.dtype, batch_size=case.batch),
    )
    setup = make_setup(config, mesh)
    sharding = by_example(mesh)
    batch = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(np.shape(x), np.asarray(x).dtype, sharding=sharding),
        setup.batches("train")[0],
    )
    return setup.steps.train.lower(setup.steps.initial, batch), None, 0


def _spilled(dump: Path) -> int | None:
    """Returns the spills of the kernels that XLA has written as PTX; None without an assembler."""
    sources = sorted(dump.glob("*.ptx"))
    nvidia = [Path(folder) / "nvidia" for folder in sys.path]
    assemblers = [path for folder in nvidia for path in folder.glob("*/bin/ptxas")]
    if not sources or not assemblers:
        return None
    total = 0
    for source in sources:
        command = [assemblers[0], "-arch=sm_90a", "-v", "-o", os.devnull, source]
        report = subprocess.run(command, capture_output=True, text=True).stderr
        total += sum(map(int, re.findall(r"(\d+) bytes spill stores", report)))
    return total


if __name__ == "__main__":
    print(json.dumps(dataclasses.asdict(compile_case(Case(**json.load(sys.stdin))))))
