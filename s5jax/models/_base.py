"""The call protocol of blocks, backbones and models, in one place."""

from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple, Unpack, overload

from flax import nnx
from jax.typing import ArrayLike
from jaxtyping import Array, Inexact, PyTree, Shaped

from s5jax.layers._base import SequenceLayer
from s5jax.layers._edits import Edits, check_dt, check_edits, valid_steps
from s5jax.layers._inputs import as_array
from s5jax.layers._module import Module
from s5jax.models._arguments import CallArguments, check_names

Result = tuple[Inexact[Array, "..."], PyTree[Array] | None]
"""Outputs, and the state after the last step; None unless the call returns it."""


class Call(NamedTuple):
    """The checked arguments of a call, besides its inputs."""

    edits: Edits = Edits()
    state: PyTree[Array] | None = None
    return_state: bool = False
    rngs: nnx.Rngs | None = None

    def of(self, module: Any, u: Shaped[Array, "..."], **arguments: Any) -> Result:
        """Calls a module that is part of the one that was called."""
        y = module(u, **arguments, return_state=self.return_state)
        return y if self.return_state else (y, None)


class SequenceModule(Module):
    """Base class of all that is built around layers: it is called and steps as a layer does.

    A call checks its arguments once and makes `s5jax.layers.Edits` of ``lengths``, ``resets`` and
    ``dt``, which every module inside receives as ``edits``. A subclass implements

    =======================================  =================================================
    ``layers``                               the sequence layers inside
    ``init_state(batch_shape)``              the state before the first step
    ``run(u, call)``                         a batch of sequences
    ``advance(u, state, dt)``                one step, in evaluation mode
    ``feature_shape``, ``check_values``      checks of inputs; by default there are none
    =======================================  =================================================
    """

    mask_padding: bool = True
    """Whether `s5jax.layers.Edits` keep padding out of resets and step lengths."""

    @property
    def layers(self) -> Sequence[SequenceLayer]:
        """The sequence layers, in the order in which they are called."""
        raise NotImplementedError(f"{type(self).__name__} must define `layers`.")

    def init_state(self, batch_shape: Sequence[int] = ()) -> PyTree[Array]:
        """Returns the state before the first step, for a batch of the given shape."""
        raise NotImplementedError(f"{type(self).__name__} must define `init_state`.")

    def run(self, u: Shaped[Array, "..."], call: Call) -> Result:
        """Maps checked sequences to outputs, and the state if the call returns it."""
        raise NotImplementedError(f"{type(self).__name__} must define `run`.")

    def advance(
        self, u: Shaped[Array, "..."], state: PyTree[Array], dt: Array | None = None
    ) -> tuple[Inexact[Array, "..."], PyTree[Array]]:
        """Takes one step of checked inputs."""
        raise NotImplementedError(f"{type(self).__name__} must define `advance`.")

    def feature_shape(self, where: str, u: Shaped[Array, "..."], n_axes: int) -> tuple[int, ...]:
        """Checks the shape of inputs; a token counts as its vector of features.

        Args:
            where: name of the outermost model, for the message.
            u: inputs of a call or a step.
            n_axes: axes after those of the batch: 2 for sequences, 1 for steps.

        Returns:
            The shape, with the axis of features.
        """
        del where, n_axes
        return u.shape

    def check_values(self, where: str, u: Shaped[Array, "..."], valid: Array | None = None) -> None:
        """Refuses values that are known to be wrong, except where ``valid`` is False."""

    @overload
    def __call__(
        self,
        u: ArrayLike | Sequence[Any],
        *,
        return_state: Literal[False] = False,
        **call: Unpack[CallArguments],
    ) -> Inexact[Array, "..."]: ...

    @overload
    def __call__(
        self,
        u: ArrayLike | Sequence[Any],
        *,
        return_state: Literal[True],
        **call: Unpack[CallArguments],
    ) -> tuple[Inexact[Array, "..."], PyTree[Array]]: ...

    def __call__(
        self,
        u: ArrayLike | Sequence[Any],
        *,
        return_state: bool = False,
        **call: Unpack[CallArguments],
    ) -> Inexact[Array, "..."] | tuple[Inexact[Array, "..."], PyTree[Array]]:
        """Maps a batch of sequences; the arguments are those of a layer, and ``rngs``.

        Args:
            u: inputs, ``(*batch, L, d_input)``, or tokens ``(*batch, L)``.
            return_state: also return the state after the last step. This needs evaluation mode
                (``model.eval()``) if the norm is a batch norm.
            **call: ``state``, ``lengths``, ``resets`` and ``dt``, see `s5jax.SequenceLayer`;
                ``rngs`` supplies the key ``dropout`` in training mode with a positive rate.

        Returns:
            The outputs; with ``return_state`` the pair of outputs and state.

        Raises:
            TypeError: for an argument that does not exist.
            ValueError: as a layer does.
        """
        return self._call(self.run, u, return_state, call)

    def step(
        self,
        u: ArrayLike | Sequence[Any],
        state: PyTree[Array],
        dt: ArrayLike | Sequence[Any] | None = None,
    ) -> tuple[Inexact[Array, "..."], PyTree[Array]]:
        """Takes one time step, in evaluation mode.

        Args:
            u: input, ``(*batch, d_input)``, or tokens ``(*batch,)``.
            state: from ``init_state`` or an earlier call.
            dt: relative length of this step, one number or one per sequence.

        Returns:
            The output and the next state.

        Raises:
            ValueError: as a layer does.
        """
        name = type(self).__name__
        u = as_array(name, "u", u)
        shape = self.feature_shape(name, u, 1)
        self.check_values(name, u)
        dt = check_dt(name, dt, shape[:-1], discrete=self._discrete(), dtype=self._dt_dtype())
        return self.advance(u, state, dt)

    def _call(
        self, run: Callable[..., Result], u: Any, return_state: bool, call: CallArguments
    ) -> Any:
        """Checks the arguments of a call, unless a caller has, and calls ``run``."""
        name = type(self).__name__
        check_names(name, call, CallArguments)
        u, edits = as_array(name, "u", u), call.get("edits")
        if edits is None:
            edits = self._check(name, u, call)
        y, state = run(u, Call(edits, call.get("state"), return_state, call.get("rngs")))
        return (y, state) if return_state else y

    def _check(self, name: str, u: Array, call: CallArguments) -> Edits:
        shape, lengths = self.feature_shape(name, u, 2), call.get("lengths")
        edits = check_edits(
            name,
            shape,
            lengths=lengths if self.mask_padding else None,
            resets=call.get("resets"),
            dt=call.get("dt"),
            discrete=self._discrete(),
            dtype=self._dt_dtype(),
        )
        if not self.mask_padding:
            edits = edits._replace(valid=valid_steps(name, lengths, shape))
        self.check_values(name, u, edits.valid)
        return edits

    def _discrete(self) -> str | None:
        """The first class of layers without a step length."""
        names = (type(layer).__name__ for layer in self.layers if not layer.continuous_time)
        return next(names, None)

    def _dt_dtype(self) -> Any:
        return self.layers[0].param_dtype
