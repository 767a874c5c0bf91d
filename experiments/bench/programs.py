"""Programs that ``--suite=compile`` compiles for accelerators, and ``--suite=gpu`` runs on one."""

import dataclasses
import math
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from experiments.bench.contestants import CONTESTANTS, Size
from experiments.bench.timing import functional
from experiments.config import Config
from experiments.recipes import get_recipe


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
        algorithm = self.algorithm
        if self.mode == "step":
            named = "" if algorithm == "auto" else f", {algorithm}"
            algorithm = f"{self.n_layers} layers, {axes}{named}"
        return f"{self.target:<5}{self.name:<10}{self.mode:<17}{algorithm:<26}{self.dtype:<9}"


class LayerProgram(NamedTuple):
    """A layer on a batch, forward or forward and backward."""

    layer: Callable[..., jax.Array]
    """``(parameters, u) -> y``."""
    f: Callable[..., Any]
    """What runs: the layer, or its gradient in parameters and inputs."""
    arguments: tuple[Any, ...]
    """Of ``f``: parameters as arrays, and the shapes of everything else."""
    algorithm: str
    floor: int
    """Bytes of inputs and outputs, and of their gradients."""


def make_layer_program(case: Case, mesh: Mesh, size: Size) -> LayerProgram:
    """Builds the functions of a layer, to be traced under the mesh; the case has the length."""
    options = {} if case.algorithm == "auto" else {"algorithm": case.algorithm}
    size, dtype = size._replace(L=case.length), jnp.dtype(case.dtype)
    layer = CONTESTANTS[case.name].make(size, dtype=dtype, **options)
    run, parameters = functional(layer, type(layer).__call__)
    u = jax.ShapeDtypeStruct((case.batch, case.length, size.H), dtype)
    floor = 2 * math.prod(u.shape) * dtype.itemsize
    with jax.set_mesh(mesh):
        algorithm = layer.algorithm_for(case.length, case.batch)
        y = jax.eval_shape(run, parameters, u)
    if case.mode == "forward":
        return LayerProgram(run, run, (parameters, u), algorithm, floor)

    def loss(arguments: tuple[Any, Any], weights: jax.Array) -> jax.Array:
        return jnp.sum((weights * run(*arguments)).astype(jnp.float32))

    return LayerProgram(run, jax.value_and_grad(loss), ((parameters, u), y), algorithm, 2 * floor)


def step_config(case: Case, recipe: Config | None = None) -> Config:
    """Returns the configuration of a train step: a recipe of S5, by default that of the paper.

    The language model, ``chars``, has the case's length, and a feed-forward block after each layer.
    """
    config = recipe or get_recipe(case.name, "s5", "paper")
    model = dataclasses.replace(config.model, n_layers=case.n_layers, algorithm=case.algorithm)
    train = dataclasses.replace(config.train, precision=case.dtype, batch_size=case.batch)
    if case.name != "chars":
        return dataclasses.replace(config, model=model, train=train)
    sizes: dict[str, Any] = {"n_train": case.batch, "n_validation": 1, "n_test": 1}
    data = dataclasses.replace(config.data, length=case.length, **sizes)
    model = dataclasses.replace(model, ffn_every=1)
    return dataclasses.replace(config, data=data, model=model, train=train)
