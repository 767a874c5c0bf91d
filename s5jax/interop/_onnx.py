"""Steps of models as ONNX graphs, for runtimes without JAX."""

import importlib
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import use_abstract_mesh

from s5jax._errors import check_positive
from s5jax.interop._real import real_function
from s5jax.interop._signature import (
    describe_function,
    exportable,
    mesh_of,
    names_of_inputs,
    names_of_outputs,
    write,
)


def export_onnx(model: Any, folder: str | Path, *, batch: int = 1) -> None:
    r"""Writes the step of a trained causal layer or model as an ONNX graph, for onnxruntime.

    .. math:: \mathrm{step}: (u_k, x_{k-1}) \mapsto (y_k, x_k)

    The graph is in real arithmetic: a complex state of shape ``(batch, N)`` is an array of shape
    ``(batch, N, 2)``, real parts first. Discretised coefficients are constants, so that products,
    sums and activations remain, in the precision of the model. HOPE adds a loop over its sections.

    The folder holds ``step.onnx`` and ``export.json``, with names, shapes and dtypes, and the
    preprocessing of a `s5jax.Pipeline`; inputs of the graph are already standardised. Inputs are
    named ``u, state_0, state_1, ...`` and outputs ``y, next_state_0, ...``. All states start at
    zero.

    Args:
        model: a layer, a model, or a `s5jax.Pipeline` of one.
        folder: made if it does not exist; files of an earlier export are replaced.
        batch: number of streams that advance together.

    Raises:
        ImportError: without the extra ``onnx``.
        ValueError: if the model cannot step, an argument is not one of the above, or the converter
            lacks an operation.

    Example:
        .. code-block:: python

            export_onnx(layer, "exported")
            session = onnxruntime.InferenceSession("exported/step.onnx")
            y, state = session.run(None, {"u": u, "state_0": state})
    """
    where = "export_onnx"
    subject = exportable(where, model)
    (batch,) = check_positive(where, batch=batch)
    try:
        to_onnx = importlib.import_module("jax2onnx").to_onnx  # an extra
    except ImportError as error:
        raise ImportError(
            f"{where}: jax2onnx must be installed; its import failed with: {error}. Run "
            "pip install 's5jax[onnx]'."
        ) from error
    complex_inputs = subject.step_arguments(batch)
    with use_abstract_mesh(mesh_of("cpu")):
        step = real_function(subject.step, complex_inputs)
    inputs = [_as_real(spec) for spec in complex_inputs]
    outputs = jax.eval_shape(step, *inputs)
    try:
        graph = to_onnx(
            step,
            inputs,
            model_name=type(subject.model).__name__,
            enable_double_precision=any(spec.dtype == jnp.float64 for spec in inputs),
            input_names=names_of_inputs(len(inputs)),
            output_names=names_of_outputs(len(outputs)),
        )
    except Exception as error:
        cause = " ".join(str(error).split())[:300] or type(error).__name__
        raise ValueError(
            f"{where}: jax2onnx must know all operations of {type(subject.model).__name__}.step; "
            f"it failed with: {cause} Export the model by export_stablehlo."
        ) from error
    description = {
        "format": "onnx",
        "functions": {"step": describe_function("step.onnx", inputs, outputs)},
    }
    write(folder, subject, {"step.onnx": graph.SerializeToString()}, description)


def _as_real(spec: jax.ShapeDtypeStruct) -> jax.ShapeDtypeStruct:
    if not jnp.issubdtype(spec.dtype, jnp.complexfloating):
        return spec
    return jax.ShapeDtypeStruct((*spec.shape, 2), jnp.finfo(spec.dtype).dtype)
