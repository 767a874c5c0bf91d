"""A trained model together with the preprocessing that it was trained with."""

import dataclasses
from collections.abc import Sequence
from typing import Any, Literal, Unpack, overload

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.typing import ArrayLike
from jaxtyping import Array, PyTree

from s5jax.layers._edits import select
from s5jax.layers._tables import unlist_methods
from s5jax.models._arguments import CallArguments

Numbers = float | Sequence["Numbers"] | np.ndarray


@dataclasses.dataclass(frozen=True, kw_only=True)
class Preprocessing:
    """Statistics and names of the data that a model was trained on.

    Statistics are numbers, or sequences or arrays of numbers that broadcast against the last axes
    of what they apply to: one per feature, or one per step and feature. They are kept as (nested)
    tuples in float64.

    Attributes:
        input_mean: subtracted from inputs.
        input_std: divides the result.
        target_mean: added to outputs that have been multiplied by ``target_std``; for regression.
        target_std: multiplies outputs.
        dt_unit: the step length that counts as one, in the units of the data; None for data
            without step lengths.
        classes: names of the classes, in the order of the logits; None for regression.
        features: names of the input features, where they have names.
        sample_rate: samples per second of sounds.
        vocabulary: what each token stands for, in the order of the tokens.

    Raises:
        ValueError: if a standard deviation or ``dt_unit`` is not positive.
    """

    input_mean: Numbers = 0.0
    input_std: Numbers = 1.0
    target_mean: Numbers = 0.0
    target_std: Numbers = 1.0
    dt_unit: float | None = None
    classes: tuple[str, ...] | None = None
    features: tuple[str, ...] | None = None
    sample_rate: int | None = None
    vocabulary: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        for name in ("input_mean", "input_std", "target_mean", "target_std"):
            value = np.asarray(getattr(self, name), np.float64)
            if not np.isfinite(value).all() or (name.endswith("std") and (value <= 0).any()):
                rule = "finite and positive" if name.endswith("std") else "finite"
                raise ValueError(f"Preprocessing: `{name}` must be {rule}; got {value}.")
            object.__setattr__(self, name, _as_tuples(value.tolist()))
        if self.dt_unit is not None and not 0 < self.dt_unit < float("inf"):
            raise ValueError(
                f"Preprocessing: `dt_unit` must be positive and finite; got {self.dt_unit}."
            )
        if self.sample_rate is not None and not isinstance(self.sample_rate, int):
            raise ValueError(
                f"Preprocessing: `sample_rate` must be an integer; got {self.sample_rate!r}."
            )
        for name in ("classes", "features", "vocabulary"):
            if (names := getattr(self, name)) is not None:
                object.__setattr__(self, name, tuple(map(str, names)))

    def standardize(self, u: ArrayLike | Sequence[Any]) -> np.ndarray | Array:
        r"""Standardises inputs: :math:`(u - \mu) / \sigma`.

        NumPy arrays are standardised in float64, so that readings whose mean is much larger than
        their deviation keep their digits; JAX arrays in their own dtype. Without statistics, as for
        tokens, inputs stay as they are.
        """
        if self.input_mean == 0.0 and self.input_std == 1.0:
            return u if isinstance(u, jax.Array) else np.asarray(u)
        if not isinstance(u, jax.Array):
            return (np.asarray(u, np.float64) - np.asarray(self.input_mean)) / self.input_std
        dtype = u.dtype if jnp.issubdtype(u.dtype, jnp.floating) else jnp.float32
        return (u - jnp.asarray(self.input_mean, dtype)) / jnp.asarray(self.input_std, dtype)

    def restore(self, outputs: ArrayLike) -> ArrayLike:
        r"""Brings outputs back to the units of the targets: :math:`\sigma y + \mu`."""
        if self.target_mean == 0.0 and self.target_std == 1.0:
            return outputs
        if not isinstance(outputs, jax.Array):
            return np.asarray(outputs) * np.asarray(self.target_std) + self.target_mean
        dtype = outputs.dtype
        return outputs * jnp.asarray(self.target_std, dtype) + jnp.asarray(self.target_mean, dtype)


class PipelineArguments(CallArguments, total=False):
    """The arguments of a call of a model, those of a `LanguageModel` included."""

    targets: ArrayLike | Sequence[Any] | None
    ignore_index: int | None


@unlist_methods
class Pipeline(nnx.Module):
    r"""A trained model on raw inputs, with outputs in the units of the targets.

    .. math:: y = \sigma_y \operatorname{model}\!\left(\frac{u - \mu_u}{\sigma_u},
        \frac{\mathrm{dt}}{\mathrm{dt\_unit}}\right) + \mu_y

    `s5jax.load` returns one for the folder ``model`` of a finished training run, so that raw data
    give the outputs that training measured. It is called like the model and steps like it; outputs
    are logits in the order of ``preprocessing.classes``, or values. The model alone, for
    fine-tuning on inputs that are already standardised, is ``pipeline.model``.

    Args:
        model: a model such as `SequenceClassifier`.
        preprocessing: how its inputs were standardised, and its targets.

    Raises:
        ValueError: if there are not as many classes as outputs, or words as tokens.

    Example:
        >>> import numpy as np
        >>> from flax import nnx
        >>> from s5jax import S5, Pipeline, Preprocessing, SequenceClassifier
        >>> model = SequenceClassifier(
        ...     S5, d_input=1, d_output=2, d_model=4, n_layers=1, layer_options={"d_state": 4},
        ...     norm="layer", rngs=nnx.Rngs(0),
        ... )
        >>> celsius = Preprocessing(input_mean=(20.0,), input_std=(5.0,), classes=("cold", "hot"))
        >>> pipeline = Pipeline(model, celsius)
        >>> x = np.array([[[25.0], [30.0], [35.0]]])
        >>> bool((pipeline(x) == model((x - 20) / 5)).all())
        True
        >>> pipeline.preprocessing.classes
        ('cold', 'hot')
    """

    def __init__(self, model: nnx.Module, preprocessing: Preprocessing) -> None:
        sizes = {"classes": "d_output", "vocabulary": "d_input"}
        for name, size in sizes.items():
            names, n = getattr(preprocessing, name), getattr(model, size, None)
            if None not in (names, n) and len(names) != n:
                raise ValueError(
                    f"Pipeline: `preprocessing.{name}` must have {n} entries, the model's "
                    f"`{size}`; got {len(names)}."
                )
        self.model: Any = model
        self.preprocessing = preprocessing

    @overload
    def __call__(
        self,
        u: ArrayLike | Sequence[Any],
        *,
        return_state: Literal[False] = False,
        **call: Unpack[PipelineArguments],
    ) -> Array: ...

    @overload
    def __call__(
        self,
        u: ArrayLike | Sequence[Any],
        *,
        return_state: Literal[True],
        **call: Unpack[PipelineArguments],
    ) -> tuple[Array, PyTree[Array]]: ...

    def __call__(
        self,
        u: ArrayLike | Sequence[Any],
        *,
        return_state: bool = False,
        **call: Unpack[PipelineArguments],
    ) -> Array | tuple[Array, PyTree[Array]]:
        """Maps raw sequences; all arguments are those of the model, with ``dt`` in its raw unit."""
        model, lengths = self.model, call.get("lengths")
        call["dt"] = self._scale(call.get("dt"))
        result = model(self._prepare(u), return_state=return_state, **call)
        outputs, state = result if return_state else (result, None)
        y = jnp.asarray(self.preprocessing.restore(outputs))
        n = None if lengths is None else jnp.asarray(lengths)
        if n is not None and y.ndim == n.ndim + 2:
            y = select(jnp.arange(y.shape[-2]) < n[..., None], y, 0)
        return (y, state) if return_state else y

    def step(
        self, u: ArrayLike | Sequence[Any], state: PyTree[Array], dt: ArrayLike | None = None
    ) -> tuple[Array, PyTree[Array]]:
        """Takes one time step of raw inputs."""
        y, state = self.model.step(self._prepare(u), state, self._scale(dt))
        return jnp.asarray(self.preprocessing.restore(y)), state

    def init_state(self, batch_shape: Sequence[int] = ()) -> PyTree[Array]:
        """Returns the model's state before the first step."""
        return self.model.init_state(batch_shape)

    def _prepare(self, u: ArrayLike | Sequence[Any]) -> Array:
        return jnp.asarray(self.preprocessing.standardize(u))

    def _scale(self, dt: ArrayLike | Sequence[Any] | None) -> Array | None:
        return None if dt is None else jnp.asarray(dt) / (self.preprocessing.dt_unit or 1.0)


def _as_tuples(value: Any) -> Numbers:
    return tuple(map(_as_tuples, value)) if isinstance(value, list) else value
