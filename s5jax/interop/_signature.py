"""What an exported model takes and returns, as flat lists of arrays."""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jax.sharding import AbstractDevice, AbstractMesh, AxisType
from jaxtyping import Array, PyTree

from s5jax.layers import SequenceLayer
from s5jax.models import DocumentMatcher, Pipeline, Preprocessing, SequenceModule


class Exportable(NamedTuple):
    """A layer or model, and the preprocessing that belongs to it."""

    model: Any
    preprocessing: Preprocessing | None

    def inputs(self, batch: Any, *time: Any) -> jax.ShapeDtypeStruct:
        """Returns shape and dtype of inputs: of sequences if there is a length, else of a step."""
        model = self.model
        layer = model if isinstance(model, SequenceLayer) else model.layers[0]
        shape = (batch, *((2,) if isinstance(model, DocumentMatcher) else ()), *time)
        if getattr(model, "encoder", "linear") != "linear":
            return jax.ShapeDtypeStruct(shape, jnp.int32)
        size = getattr(model, "d_input", layer.d_model)
        return jax.ShapeDtypeStruct((*shape, size), layer.param_dtype)

    def state(self, batch: Any) -> PyTree[jax.ShapeDtypeStruct]:
        """Returns shapes and dtypes of the state."""
        state = jax.eval_shape(lambda: self.model.init_state((1,)))
        return jax.tree.map(lambda x: jax.ShapeDtypeStruct((batch, *x.shape[1:]), x.dtype), state)

    def step_arguments(self, batch: Any) -> list[jax.ShapeDtypeStruct]:
        """Returns the shapes and dtypes of the arguments of `step`."""
        return [self.inputs(batch), *jax.tree.leaves(self.state(batch))]

    def call(self, u: Array) -> tuple[Array]:
        """Maps whole sequences."""
        return (self.model(u),)

    def step(self, u: Array, *leaves: Array) -> tuple[Array, ...]:
        """Takes one step, from and to the leaves of a state."""
        structure = jax.tree.structure(self.state(1))
        y, state = self.model.step(u, jax.tree.unflatten(structure, leaves))
        return y, *jax.tree.leaves(state)


def exportable(where: str, model: Any) -> Exportable:
    """Returns a copy of what is to be exported, in evaluation mode.

    Raises:
        ValueError: for anything but a layer, a model, or a pipeline of one.
    """
    preprocessing = None
    if isinstance(model, Pipeline):
        model, preprocessing = model.model, model.preprocessing
    if not isinstance(model, SequenceLayer | SequenceModule):
        raise ValueError(
            f"{where}: `model` must be a layer, a model or a Pipeline of s5jax; got a "
            f"{type(model).__name__}."
        )
    model = nnx.clone(model)
    model.eval()
    return Exportable(model, preprocessing)


def mesh_of(platform: str) -> AbstractMesh:
    """A mesh of one device, by which ``algorithm="auto"`` chooses; it need not be here."""
    device = AbstractDevice(device_kind="any", num_cores=None, platform=platform)
    return AbstractMesh((1,), ("device",), (AxisType.Auto,), abstract_device=device)


def names_of_inputs(n: int) -> list[str]:
    """Returns the names of n inputs: of the model, and of its state."""
    return ["u", *(f"state_{i}" for i in range(n - 1))]


def names_of_outputs(n: int) -> list[str]:
    """Returns the names of n outputs: of the model, and of its next state."""
    return ["y", *(f"next_state_{i}" for i in range(n - 1))]


def describe_function(file: str, inputs: Sequence[Any], outputs: Sequence[Any]) -> dict[str, Any]:
    """Returns names, shapes and dtypes for JSON; sizes that are symbols are strings."""

    def describe(names: list[str], specs: Sequence[Any]) -> list[dict[str, Any]]:
        return [
            {
                "name": name,
                "shape": [n if isinstance(n, int) else str(n) for n in spec.shape],
                "dtype": jnp.dtype(spec.dtype).name,
            }
            for name, spec in zip(names, specs, strict=True)
        ]

    return {
        "file": file,
        "inputs": describe(names_of_inputs(len(inputs)), inputs),
        "outputs": describe(names_of_outputs(len(outputs)), outputs),
    }


def write(
    folder: str | Path,
    subject: Exportable,
    files: Mapping[str, bytes],
    description: Mapping[str, Any],
) -> None:
    """Writes serialised functions and ``export.json``."""
    folder, preprocessing = Path(folder), subject.preprocessing
    leaves, _ = jax.tree.flatten_with_path(subject.state(1))
    description = {
        "s5jax": version("s5jax"),
        "jax": jax.__version__,
        "model": type(subject.model).__name__,
        **description,
        "paths_of_state": [f"state{jax.tree_util.keystr(path)}" for path, _ in leaves],
        "preprocessing": None if preprocessing is None else dataclasses.asdict(preprocessing),
    }
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("call.jax", "step.jax", "step.onnx", "load_exported.py"):
        (folder / name).unlink(missing_ok=True)
    for name, data in files.items():
        (folder / name).write_bytes(data)
    (folder / "export.json").write_text(json.dumps(description, indent=1) + "\n", encoding="utf-8")
