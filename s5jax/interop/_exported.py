"""Reads exported models. This file needs JAX alone, and every export holds a copy of it."""

import json
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from jax import export


class ExportedModel:
    """A model that `load_exported` has read.

    Attributes:
        description: the content of ``export.json``.
    """

    def __init__(self, description: dict[str, Any], functions: dict[str, Any]) -> None:
        self.description = description
        self._functions = {name: jax.jit(f.call) for name, f in functions.items()}

    def __call__(self, u: Any) -> jax.Array:
        """Maps whole sequences from the zero state, in evaluation mode.

        Raises:
            ValueError: if the export has no function for sequences, or ``u`` does not fit it.
        """
        (y,) = self._function("call")(self._input("call", u))
        return y

    def init_state(self, batch: int = 1) -> list[jax.Array]:
        """Returns the state before the first step, all zeros: a list of arrays.

        Raises:
            ValueError: if the export has no step.
        """
        self._function("step")
        _, *state = self.description["functions"]["step"]["inputs"]
        return [jnp.zeros((batch, *leaf["shape"][1:]), leaf["dtype"]) for leaf in state]

    def step(self, u: Any, state: list[jax.Array]) -> tuple[jax.Array, list[jax.Array]]:
        """Takes one time step: returns the output and the next state.

        Raises:
            ValueError: if the export has no step, or ``u`` does not fit it.
        """
        y, *state = self._function("step")(self._input("step", u), *state)
        return y, state

    def _function(self, name: str) -> Any:
        if name not in self._functions:
            raise ValueError(
                f"ExportedModel: the export must hold `{name}`; it holds "
                f"{', '.join(self._functions)}. Export the model again with what=('{name}',)."
            )
        return self._functions[name]

    def _input(self, name: str, u: Any) -> jax.Array:
        self._function(name)
        expected = self.description["functions"][name]["inputs"][0]
        u = jnp.asarray(u, expected["dtype"])
        fits = u.ndim == len(expected["shape"]) and all(
            isinstance(size, str) or n == size
            for n, size in zip(u.shape, expected["shape"], strict=True)
        )
        if not fits:
            shape = ", ".join(map(str, expected["shape"]))
            raise ValueError(f"ExportedModel: `u` must have shape ({shape}); got {u.shape}.")
        return u


def load_exported(folder: str | Path) -> ExportedModel:
    """Reads what `export_stablehlo` wrote.

    On a machine without s5jax, import it from the file ``load_exported.py`` in that folder, which
    needs JAX alone.

    Args:
        folder: the folder given to `export_stablehlo`.

    Returns:
        The model: ``model(u)`` maps whole sequences, ``model.step(u, state)`` takes a step, and
        ``model.init_state(batch)`` returns the state before the first one, a list of arrays.

    Raises:
        FileNotFoundError: if the folder does not hold an export.
        ValueError: if a file is corrupted, or the export is not in the format of StableHLO.

    Example:
        See `export_stablehlo`.
    """
    folder = Path(folder)
    path = folder / "export.json"
    if not path.is_file():
        raise FileNotFoundError(
            f"load_exported: {path} does not exist; `folder` must be one that export_stablehlo "
            "wrote."
        )
    try:
        description = json.loads(path.read_text(encoding="utf-8"))
        kind, names = description["format"], list(description["functions"])
        if kind == "stablehlo":
            functions = {}
            for name in names:
                path = folder / description["functions"][name]["file"]
                functions[name] = export.deserialize(bytearray(path.read_bytes()))
            return ExportedModel(description, functions)
    except Exception as error:
        cause = " ".join(str(error).split())[:300] or type(error).__name__
        raise ValueError(
            f"load_exported: {path} is missing or corrupted: {cause} Export the model again."
        ) from error
    raise ValueError(
        f"load_exported: the format in {path} must be 'stablehlo'; got {kind!r}. Run models of "
        "another format with its own runtime, such as onnxruntime."
    )
