"""Rows of ``--suite=compile``: what programs need on accelerators that are not here.

Nothing runs on them. Each case is compiled in a process of its own, ``python -m
experiments.bench.compiled`` with the case as its input, because a compilation can take minutes and
cannot be interrupted.
"""

import dataclasses
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, Sharding

from experiments.bench.contestants import CONTESTANTS, Size
from experiments.bench.hlo import traffic
from experiments.bench.programs import Case, make_layer_program, step_config
from experiments.bench.targets import ENVIRONMENT, TARGETS, make_target_mesh, missing
from experiments.devices.mesh import by_example, replicated
from experiments.training.setup import make_setup

LIMIT_S = 600
"""Longest compilation."""


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
    arguments: int = 0
    """Bytes of the arguments; a step writes its results in the place of its state."""
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
        for name in ("S4", "S4D", "DLR", "HOPE"):  # auto's choice for few or short sequences
            yield Case(target="h200", name=name, mode=mode, algorithm="fft")
    step: dict[str, Any] = {"name": "pathx", "mode": "step", "batch": 32}
    yield Case(target="h200", **step)
    yield Case(target="h200", **step, dtype="bfloat16")
    yield Case(target="h200", **step, n_layers=6)
    yield Case(target="h200", **step, n_layers=6, dtype="bfloat16")
    yield Case(target="v5e", **step, mesh={"data": 4})
    yield Case(target="v5e", **step, mesh={"data": 4}, n_layers=6)
    yield Case(target="v5e", **step, mesh={"data": 2, "seq": 2})
    yield from slice_cases()


def slice_cases() -> Iterator[Case]:
    """Yields whole models on slices of 64 and 256 chips.

    The last one is a language model of 200 million parameters.
    """
    step: dict[str, Any] = {"mode": "step", "batch": 32, "n_layers": 6}
    for n_chips in (64, 256):
        for name in ("pathx", "path256"):
            yield Case(target="v5e", name=name, mesh={"data": 32, "seq": n_chips // 32}, **step)
    model: dict[str, Any] = {"name": "chars", "n_layers": 69, "batch": 8, "length": 131_072}
    for n_chips in (64, 256):
        yield Case(target="v5e", mode="step", mesh={"data": 8, "seq": n_chips // 8}, **model)


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
        arguments=memory.argument_size_in_bytes,
        launches=counted.launches,
        exchanged={kind: list(both) for kind, both in counted.exchanged.items()},
        unknown_loops=counted.unknown_loops,
        compile_s=seconds,
    )


def _lower_layer(case: Case, mesh: Mesh) -> tuple[jax.stages.Lowered, str, int]:
    program = make_layer_program(case, mesh, Size())
    arguments = jax.tree.map(lambda x: _absent(x, replicated(mesh)), program.arguments)
    with jax.set_mesh(mesh):
        return jax.jit(program.f).lower(*arguments), program.algorithm, program.floor


def _lower_step(case: Case, mesh: Mesh) -> tuple[jax.stages.Lowered, None, int]:
    setup = make_setup(step_config(case), mesh)
    arrays = jax.tree.map(np.asarray, setup.batches("train")[0])
    batch = jax.tree.map(lambda x: _absent(x, by_example(mesh)), arrays)
    return setup.steps.train.lower(setup.steps.initial, batch), None, 0


def _absent(x: Any, sharding: Sharding) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding)


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
