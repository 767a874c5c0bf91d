"""The contract of every sequence layer: three methods to write, and all that follows from them."""

from collections.abc import Sequence
from typing import Any, ClassVar, Literal, overload

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike, DTypeLike
from jaxtyping import Array, Bool, Inexact, Integer, PyTree, Real

from s5jax._errors import as_integer
from s5jax.layers._devices import next_share, over_devices, placement, relay
from s5jax.layers._edits import (
    Edits,
    check_dt,
    check_edits,
    contain_nonfinite,
    select,
    select_state,
)
from s5jax.layers._inputs import as_reals, check_state
from s5jax.layers._module import Module
from s5jax.layers._steps import derive_ssm, scan_steps
from s5jax.ops import StateSpace


class SequenceLayer(Module):
    r"""Base class of all layers: a causal map of sequences with a state, or two of them.

    A layer implements three methods:

    =====================================  =====================================================
    ``coefficients(dt, backward=False)``   the parameters of one step, discretised
    ``init_state(batch_shape)``            the state before the first step, a pytree of arrays
    ``advance(coefficients, state, u)``    the definition: one step, ``(y, state)``
    =====================================  =====================================================

    Everything else follows from them. Three more methods exist for speed, and their defaults scan
    `advance` over time:

    =====================================  =====================================================
    ``run(state, u, edits, reverse)``      a sequence through one of the two maps
    ``run_both(u, edits)``                 a sequence through both maps of a bidirectional layer
    ``run_shard(state, u, edits)``         one device's share of the time steps
    =====================================  =====================================================

    A bidirectional layer adds a second map that runs backward in time, with the coefficients of
    ``backward=True``. It has no final state, so it neither steps nor streams.

    ``lengths``, ``resets`` and ``dt`` become one checked value, `s5jax.layers.Edits`, in the
    outermost call. A ``run`` that is fast only if all steps are alike tests ``edits.uniform`` and
    leaves the rest to ``super().run``.

    Under a mesh (`jax.set_mesh`) a call splits time over the axis ``seq``, and the first batch axis
    over the axis ``data``, where there is such an axis. Results are the same, and each device holds
    its share only. Axes of the type `jax.sharding.AxisType.Explicit` are left to the compiler
    during the call; outputs are then split as the inputs are.

    Time is axis -2 and features are axis -1; any leading axes are batch axes. Calls and steps
    accept whatever `numpy.asarray` converts to real numbers, integers included. In a program of
    `jax.export` the length may be a symbol; such sequences run step by step.
    """

    continuous_time: ClassVar[bool] = False
    """Whether the layer has a step length, and hence takes ``dt``."""

    mixes_features: bool = False
    """Whether an output feature depends on other input features; the kernel is then a matrix."""

    linear: ClassVar[bool] = True
    """Whether outputs are linear in the inputs, so that an impulse response exists."""

    backward_delay: ClassVar[int] = 0
    """Steps by which the backward map of a bidirectional layer lags.

    0 if its output at a step depends on the input of that step; 1 if only on later inputs, which is
    the convention of S4, DLR and SGConv.
    """

    d_model: int
    bidirectional: bool = False
    dtype: DTypeLike | None = None
    param_dtype: DTypeLike = jnp.float32

    @property
    def d_output(self) -> int:
        """Number of output features."""
        return self.d_model

    def algorithm_for(self, L: int, batch: int = 1) -> str:
        """Returns the algorithm for uniform sequences of L steps, resolved if it is ``"auto"``."""
        del L, batch
        return "stepwise"

    def coefficients(self, dt: Array | float | None = None, *, backward: bool = False) -> PyTree:
        """Returns the parameters of one step; a ``dt`` of shape ``(*batch,)`` adds those axes."""
        raise NotImplementedError(f"{type(self).__name__} must define `coefficients`.")

    def init_state(self, batch_shape: Sequence[int] = ()) -> PyTree[Array]:
        """Returns the state before the first step, for a batch of the given shape."""
        raise NotImplementedError(f"{type(self).__name__} must define `init_state`.")

    def advance(
        self, coefficients: PyTree, state: PyTree[Array], u: Inexact[Array, "*batch H"]
    ) -> tuple[Inexact[Array, "*batch H"], PyTree[Array]]:
        """Takes one step: returns the output and the next state."""
        raise NotImplementedError(f"{type(self).__name__} must define `advance`.")

    @overload
    def __call__(
        self,
        u: Real[ArrayLike, "*batch L H"] | Sequence[Any],
        *,
        state: PyTree[Array] | None = None,
        lengths: Integer[ArrayLike, "*batch"] | Sequence[Any] | None = None,
        resets: Bool[ArrayLike, "*batch L"] | Sequence[Any] | None = None,
        dt: Real[ArrayLike, ""] | Real[ArrayLike, "*batch L"] | Sequence[Any] | None = None,
        edits: Edits | None = None,
        return_state: Literal[False] = False,
    ) -> Inexact[Array, "*batch L out"]: ...

    @overload
    def __call__(
        self,
        u: Real[ArrayLike, "*batch L H"] | Sequence[Any],
        *,
        state: PyTree[Array] | None = None,
        lengths: Integer[ArrayLike, "*batch"] | Sequence[Any] | None = None,
        resets: Bool[ArrayLike, "*batch L"] | Sequence[Any] | None = None,
        dt: Real[ArrayLike, ""] | Real[ArrayLike, "*batch L"] | Sequence[Any] | None = None,
        edits: Edits | None = None,
        return_state: Literal[True],
    ) -> tuple[Inexact[Array, "*batch L out"], PyTree[Array]]: ...

    def __call__(
        self,
        u: Real[ArrayLike, "*batch L H"] | Sequence[Any],
        *,
        state: PyTree[Array] | None = None,
        lengths: Integer[ArrayLike, "*batch"] | Sequence[Any] | None = None,
        resets: Bool[ArrayLike, "*batch L"] | Sequence[Any] | None = None,
        dt: Real[ArrayLike, ""] | Real[ArrayLike, "*batch L"] | Sequence[Any] | None = None,
        edits: Edits | None = None,
        return_state: bool = False,
    ) -> Inexact[Array, "*batch L out"] | tuple[Inexact[Array, "*batch L out"], PyTree[Array]]:
        """Maps a batch of sequences.

        A NaN or an infinity in the inputs makes outputs from its step on non-finite (the gates of a
        GRU take infinities). It may also reach earlier outputs of its sequence where one product
        computes many steps: in S4, S4D, DLR, SGConv, HOPE and attention, and up to 15 steps back
        with ``algorithm="block"``. With ``resets``, even if all are False, it never does.

        Args:
            u: inputs, ``(*batch, L, H)``, any ``L >= 1``; the batch may be empty.
            state: state before the first step, from `init_state` or an earlier call; zero if
                omitted.
            lengths: ``(*batch,)``, the true lengths of right-padded sequences. Padded inputs may
                hold anything, NaN included; padded outputs are zero, and a returned state is the
                one after ``lengths`` steps.
            resets: ``(*batch, L)``, True at the first step of a new segment. Nothing crosses a
                reset, in either direction.
            dt: length of the interval that a step stands for, relative to the layer's own, either
                one positive number (another sampling rate) or one per step that is not negative
                (irregular sampling). Continuous-time layers only.
            edits: the last three, already checked, as a model passes them to its layers.
            return_state: also return the state after the last step.

        Returns:
            Outputs, ``(*batch, L, H)``; with ``return_state`` the pair of outputs and state.

        Raises:
            ValueError: if shapes or values break these rules, if ``dt`` is given to a discrete-time
                layer, or if a bidirectional layer is asked for a state.
        """
        name = type(self).__name__
        u = as_reals(name, "u", u, self.param_dtype)
        if u.ndim < 2 or u.shape[-1] != self.d_model or u.shape[-2] < 1:
            raise ValueError(
                f"{name}: `u` must have shape (*batch, L, {self.d_model}) with L >= 1; "
                f"got {u.shape}."
            )
        if edits is None:
            edits = check_edits(
                name,
                u.shape,
                lengths=lengths,
                resets=resets,
                dt=dt,
                discrete=None if self.continuous_time else name,
                dtype=self.param_dtype,
            )
        if state is not None or return_state:
            self.check_use("state")
            start = self.init_state(u.shape[:-2])
            state = start if state is None else check_state(name, state, start)
        if edits.valid is not None or edits.resets is not None:
            self.check_use("lengths")
        if not isinstance(u.shape[-2], int):
            self.check_use("symbolic length", u.shape[-2])
        y, last = self._map(state, u, edits, last_state=return_state)
        return (y, last) if return_state else y

    def step(
        self,
        u: Real[ArrayLike, "*batch H"] | Sequence[Any],
        state: PyTree[Array],
        dt: Real[ArrayLike, ""] | Real[ArrayLike, "*batch"] | Sequence[Any] | None = None,
    ) -> tuple[Inexact[Array, "*batch H"], PyTree[Array]]:
        """Takes one time step: a call on a sequence of length one, without its overhead.

        Args:
            u: input, ``(*batch, H)``.
            state: from `init_state` or an earlier call.
            dt: relative length of this step, one number or one per sequence.

        Returns:
            The output, ``(*batch, H)``, and the next state.

        Raises:
            ValueError: if the layer is bidirectional, the shape is wrong, or ``dt`` does not apply.
        """
        self.check_use("step")
        name = type(self).__name__
        where = f"{name}.step"
        u = as_reals(where, "u", u, self.param_dtype)
        if u.ndim < 1 or u.shape[-1] != self.d_model:
            raise ValueError(
                f"{where}: `u` must have shape (*batch, {self.d_model}); got {u.shape}."
            )
        state = check_state(where, state, self._state_like(state, u.shape[:-1]))
        discrete = None if self.continuous_time else name
        dt = check_dt(name, dt, u.shape[:-1], discrete=discrete, dtype=self.param_dtype)
        return self.advance(self.coefficients(dt), state, u)

    def kernel(self, L: int) -> Array | tuple[Array, Array]:
        """Returns the impulse response at lags ``0, ..., L - 1``, with the skip term at lag 0.

        Args:
            L: number of lags.

        Returns:
            ``(L, H)``, or ``(L, H, H)`` with ``y[t] = sum_j K[j] @ u[t - j]`` for layers that mix
            features; a pair, forward and backward in time, if the layer is bidirectional, where row
            ``j`` of the second multiplies ``u[t + j + backward_delay]``.

        Raises:
            ValueError: if ``L`` is not positive, or the layer is not linear.
        """
        name = type(self).__name__
        if not self.linear:
            raise ValueError(
                f"{name}.kernel: this layer is not linear in its inputs, so no impulse response "
                "describes it. Call it on sequences instead."
            )
        self.check_use("kernel")
        lags = as_integer(L)
        if lags is None or lags < 1:
            raise ValueError(f"{name}.kernel: `L` must be at least 1; got {L}.")
        forward = self._impulse_response(lags)
        if not self.bidirectional:
            return forward
        return forward, self._impulse_response(lags, backward=True)

    def to_ssm(self) -> StateSpace:
        r"""Returns the layer as an explicit discrete state space, where one exists exactly.

        By default the matrices are the derivatives of `advance`. As :math:`y_k` is read off the
        state after step k, H more states hold the output.

        Raises:
            ValueError: if the layer is bidirectional, or not linear.
        """
        if not self.linear:
            raise ValueError(
                f"{type(self).__name__}.to_ssm: this layer is not linear in its inputs, so it is "
                "not a finite state space of fixed matrices. Use `step`."
            )
        self.check_use("to_ssm")
        return derive_ssm(self)

    def run(
        self,
        state: PyTree[Array] | None,
        u: Inexact[Array, "*batch L H"],
        edits: Edits,
        *,
        reverse: bool = False,
    ) -> tuple[Inexact[Array, "*batch L H"], PyTree[Array] | None]:
        """Runs a sequence through the forward map, or with ``reverse`` through the backward one.

        By default it scans `advance`, which is exact for every layer and every edit. A reset
        *selects* the initial state, and padding *selects* the old one; a product with zero would
        let a NaN through.

        Args:
            state: state before the first step (after the last one with ``reverse``). None starts
                from zero and asks for no final state.
            u: inputs; zero on padding.
            edits: checked edits. Resets mark first steps in the order of time in both directions.
            reverse: run the backward map, from the last step to the first. Its outputs are not
                yet aligned: see `align_backward`.

        Returns:
            Outputs, and the final state, or None if ``state`` is None.
        """
        return scan_steps(self, state, u, edits, reverse=reverse)

    def run_both(
        self, u: Inexact[Array, "*batch L H"], edits: Edits
    ) -> Inexact[Array, "*batch L out"]:
        """Runs a sequence through both maps of a bidirectional layer, and adds their outputs."""
        forward, _ = self.run(None, u, edits)
        backward, _ = self.run(None, u, edits, reverse=True)
        return forward + self.align_backward(backward, edits.resets)

    def run_shard(
        self, state: PyTree[Array] | None, u: Inexact[Array, "*batch L H"], edits: Edits
    ) -> tuple[Inexact[Array, "*batch L out"], PyTree[Array] | None]:
        """Runs the time steps of one device on the mesh axis ``seq``.

        By default devices find the states at their ends one after another, and then all outputs
        together: exact, with a share of the memory, but no faster than one device.

        Args:
            state: state before the steps of all devices, the same on each; None as in `run`.
            u: this device's inputs.
            edits: this device's edits.

        Returns:
            This device's outputs, and the state after the steps of all devices.
        """
        zero = self.init_state(u.shape[:-2])
        first = zero if state is None else state
        before, last = relay(lambda x: self.run(x, u, edits)[1], first)
        y, _ = self.run(before, u, edits)
        if not self.bidirectional:
            return y, None if state is None else last
        cut = None if edits.resets is None else edits.resets[..., 0]

        def leave(x: PyTree[Array]) -> PyTree[Array]:
            _, x = self.run(x, u, edits, reverse=True)
            return x if cut is None else select_state(cut, zero, x)

        before, _ = relay(leave, zero, reverse=True)
        backward, _ = self.run(before, u, edits, reverse=True)
        ahead = backward[..., :1, :]
        ahead = next_share(ahead if cut is None else select(cut, jnp.zeros_like(ahead), ahead))
        return y + self.align_backward(backward, edits.resets, ahead), None

    def align_backward(
        self,
        y: Inexact[Array, "*batch L H"],
        resets: Bool[Array, "*batch L"] | None = None,
        ahead: Inexact[Array, "*batch 1 H"] | None = None,
    ) -> Inexact[Array, "*batch L H"]:
        """Moves the outputs of the backward map to the steps that they belong to.

        ``ahead`` is the output that follows the last one, zero if omitted.
        """
        if not self.backward_delay:
            return y
        if resets is not None:
            y = select(resets, jnp.zeros_like(y), y)
        ahead = jnp.zeros_like(y[..., :1, :]) if ahead is None else ahead
        return jnp.concatenate([y[..., 1:, :], ahead], -2)

    def check_use(self, use: str, got: object = None) -> None:
        """Raises a ValueError if the layer cannot serve a use.

        Args:
            use: ``"state"``, ``"step"``, ``"to_ssm"`` or the name of a function that needs a causal
                layer; ``"lengths"`` (or resets), ``"kernel"``, or ``"symbolic length"``.
            got: what the caller received, for the message.
        """
        del got
        if self.bidirectional and use not in ("lengths", "kernel", "symbolic length"):
            raise ValueError(
                f"{type(self).__name__}: `{use}` needs a causal layer, and this one is "
                "bidirectional, so its outputs depend on inputs to come. Build it with "
                "`bidirectional=False`, or call it on whole sequences."
            )

    def zero_state(
        self, batch_shape: Sequence[int], *shape: int, complex_valued: bool = False
    ) -> Inexact[Array, "..."]:
        """Returns zeros in the dtype of states, which is float32 or wider."""
        dtype = self._state_dtype()
        dtype = jnp.result_type(dtype, jnp.complex64) if complex_valued else dtype
        return jnp.zeros((*batch_shape, *shape), dtype)

    def _map(
        self, state: PyTree[Array] | None, u: Array, edits: Edits, *, last_state: bool
    ) -> tuple[Array, PyTree[Array] | None]:
        """Maps checked arguments: keeps padding and non-finite values apart, and picks the run."""
        valid, poisoned = edits.valid, None
        if valid is not None:
            u = select(valid, u, 0)
        if edits.resets is not None:
            u, state, edits, poisoned = contain_nonfinite(
                u, state, edits, bidirectional=self.bidirectional
            )
        elif not (edits.irregular or last_state or (self.bidirectional and not self.linear)):
            edits = edits._replace(valid=None)  # zeros at the end change nothing before it
        whole = SequenceLayer._run_whole
        if any(placement(u.shape)):
            y, last = over_devices(self, whole, type(self).run_shard, state, u, edits)
        else:
            y, last = whole(self, state, u, edits)
        if poisoned is not None:
            y = select(poisoned, jnp.full_like(y, jnp.nan), y)
            last = jax.tree.map(
                lambda x: select(poisoned[..., -1], jnp.full_like(x, jnp.nan), x), last
            )
        return y if valid is None else select(valid, y, 0), last

    def _run_whole(
        self, state: PyTree[Array] | None, u: Array, edits: Edits
    ) -> tuple[Array, PyTree[Array] | None]:
        """Runs whole sequences on one device."""
        return (self.run_both(u, edits), None) if self.bidirectional else self.run(state, u, edits)

    def _compute_dtype(self, u: Array) -> DTypeLike:
        """The dtype of products and outputs."""
        return jnp.promote_types(u.dtype, self.param_dtype) if self.dtype is None else self.dtype

    def _state_dtype(self) -> DTypeLike:
        """The dtype of real states, float32 or wider."""
        dtype = self.param_dtype if self.dtype is None else self.dtype
        return jnp.promote_types(dtype, jnp.float32)

    def _state_like(self, state: PyTree, batch_shape: Sequence[int]) -> PyTree[Array]:
        """What a state given to `step` must look like."""
        del state
        return self.init_state(batch_shape)

    def _impulse_response(self, L: int, *, backward: bool = False) -> Array:
        def response(u_0: Array) -> Array:
            u = jnp.zeros((L, self.d_model), u_0.dtype).at[-1 if backward else 0].set(u_0)
            y, _ = self.run(None, u, Edits(), reverse=backward)
            return jnp.flip(y, 0) if backward else y

        if not self.mixes_features:
            return response(jnp.ones(self.d_model))
        return jnp.moveaxis(jax.lax.map(response, jnp.eye(self.d_model)), 0, -1)
