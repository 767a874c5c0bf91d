"""Models as StableHLO programs, which JAX runs without this library."""

import inspect
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, get_args

import jax
from flax import nnx
from jax import export
from jax.sharding import use_abstract_mesh

from s5jax._errors import check_choice, check_positive
from s5jax.interop import _exported
from s5jax.interop._signature import (
    Exportable,
    describe_function,
    exportable,
    mesh_of,
    write,
)
from s5jax.layers import S5

Platform = Literal["cpu", "cuda", "rocm", "tpu"]
ExportedFunction = Literal["call", "step"]


def export_stablehlo(
    model: Any,
    folder: str | Path,
    *,
    what: Sequence[ExportedFunction] = ("call", "step"),
    length: int | None = None,
    platforms: Sequence[Platform] = ("cpu", "cuda", "tpu"),
) -> None:
    r"""Writes a trained layer or model as StableHLO, for machines that have JAX alone.

    The functions, in evaluation mode and with the parameters inside, are

    .. math:: \mathrm{call}: u_{0:L} \mapsto y, \qquad
              \mathrm{step}: (u_k, x_{k-1}) \mapsto (y_k, x_k)

    with a batch of any size and the state as a list of arrays. `load_exported` reads them. The
    folder holds ``call.jax`` and ``step.jax``, which `jax.export.deserialize` reads, too;
    ``export.json``, with names, shapes and dtypes, and the preprocessing of a `s5jax.Pipeline`; and
    ``load_exported.py``, the loader. The functions take inputs that are already standardised.

    A program for one platform uses the algorithms that ``algorithm="auto"`` chooses there. One for
    several platforms uses those for a CPU, which run everywhere.

    Args:
        model: a layer, a model, or a `s5jax.Pipeline` of one.
        folder: made if it does not exist; files of an earlier export are replaced.
        what: ``"call"`` for whole sequences, ``"step"`` for causal models, or both.
        length: the length of sequences. By default any length works, and recurrences then run step
            by step, and convolutions too; a fixed length lets the program use parallel algorithms.
        platforms: where the program is to run: ``"cpu"``, ``"cuda"``, ``"rocm"``, ``"tpu"``.

    Raises:
        ValueError: if the model cannot step, its filter depends on the length and none is given, an
            argument is not one of the above, or an algorithm runs on one platform only.

    Example:
        >>> import tempfile
        >>> import jax.numpy as jnp
        >>> from flax import nnx
        >>> from s5jax import S5
        >>> from s5jax.interop import export_stablehlo, load_exported
        >>> layer = S5(d_model=4, d_state=8, rngs=nnx.Rngs(0))
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     export_stablehlo(layer, folder, platforms=["cpu"])
        ...     model = load_exported(folder)
        >>> model(jnp.ones((2, 100, 4))).shape
        (2, 100, 4)
        >>> y, state = model.step(jnp.ones((3, 4)), model.init_state(3))
        >>> y.shape, [x.shape for x in state]
        ((3, 4), [(3, 4)])
    """
    where = "export_stablehlo"
    subject = exportable(where, model)
    _check_names(where, "what", what, get_args(ExportedFunction))
    _check_names(where, "platforms", platforms, get_args(Platform))
    if length is not None:
        (length,) = check_positive(where, length=length)
    layers = [node for _, node in nnx.iter_modules(subject.model) if isinstance(node, S5)]
    if "call" in what and any(layer.algorithm == "pallas" for layer in layers):
        raise ValueError(
            f"{where}: a program must run on other machines, and the kernels of "
            "`algorithm='pallas'` are compiled for one GPU. Build the model with another "
            "`algorithm`; its parameters are the same."
        )
    files = {"load_exported.py": inspect.getsource(_exported).encode()}
    functions = {}
    for name in what:
        program = _program(subject, name, length, platforms)
        file = f"{name}.jax"
        files[file] = bytes(program.serialize())
        functions[name] = describe_function(file, program.in_avals, program.out_avals)
    description = {
        "format": "stablehlo",
        "platforms": list(platforms),
        "functions": functions,
    }
    write(folder, subject, files, description)


def _program(
    subject: Exportable, name: str, length: int | None, platforms: Sequence[str]
) -> export.Exported:
    """Traces and lowers one function."""
    batch, L = export.symbolic_shape("b, L")
    if name == "step":
        function, specs = subject.step, subject.step_arguments(batch)
    else:
        function, specs = subject.call, [subject.inputs(batch, L if length is None else length)]
    with use_abstract_mesh(mesh_of(platforms[0] if len(platforms) == 1 else "cpu")):
        return export.export(jax.jit(function), platforms=platforms)(*specs)


def _check_names(where: str, argument: str, names: Any, valid: Sequence[str]) -> None:
    """Raises a ValueError unless names are a sequence of at least one valid name."""
    if isinstance(names, str) or len(names) == 0:
        raise ValueError(
            f"{where}: `{argument}` must be a sequence of at least one name; got {names!r}."
        )
    for name in names:
        check_choice(where, argument, name, valid)
