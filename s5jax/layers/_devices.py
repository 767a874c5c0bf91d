"""Sequences that are split over devices: who holds which steps, and what they exchange.

The convention is a mesh, `jax.set_mesh`, with an axis ``data`` over which examples are divided, or
``seq`` over which time is, or both. The compiler places everything outside of the layers (the axes
are `jax.sharding.AxisType.Auto`; `s5jax.layers._explicit` makes others so). Inside a layer each
device works on its own share, even if only examples are divided: otherwise the compiler gathers all
examples on every device for a Fourier transform.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax.sharding import AxisType
from jax.sharding import PartitionSpec as P
from jaxtyping import Array, Bool, Complex, Float, Inexact, PyTree

from s5jax.layers._masks import select
from s5jax.ops import Backend, complex_to_pair, linear_scan, pair_scan, pair_to_complex

if TYPE_CHECKING:
    from s5jax.layers._base import Edits, SequenceLayer

TIME = "seq"
EXAMPLES = "data"


def placement(u: Inexact[Array, "*batch L H"]) -> tuple[str | None, ...]:
    """The mesh axes that divide the batch axes, of which the first may be, and time.

    All None without a mesh in the context, and within one device's share.
    """
    mesh = jax.sharding.get_abstract_mesh()
    types = dict(zip(mesh.axis_names, mesh.axis_types, strict=True))
    data, seq = (
        mesh.shape[axis] if types.get(axis) == AxisType.Auto else 1 for axis in (EXAMPLES, TIME)
    )
    divides = data > 1 and u.shape[0] % data == 0
    batch = [EXAMPLES if divides and i == 0 else None for i in range(u.ndim - 2)]
    return (*batch, TIME if seq > 1 else None)


def along_time(x: Inexact[Array, "*batch L H"]) -> Inexact[Array, "*batch L H"]:
    """The same array, each device with its examples and its steps, if time is split."""
    axes = placement(x)
    return jax.lax.with_sharding_constraint(x, P(*axes)) if axes[-1] else x


def over_devices(
    layer: "SequenceLayer",
    state: PyTree[Array] | None,
    u: Inexact[Array, "*batch L H"],
    dt: Array | float | None,
    edits: "Edits",
) -> tuple[Inexact[Array, "*batch L out"], PyTree[Array] | None]:
    """`SequenceLayer.whole`, or `SequenceLayer.on_chunk` if time is split, on each device."""
    axes = placement(u)
    _check_length(layer, u, axes[-1])
    graphdef, variables = nnx.split(layer)
    by_example, by_step = P(*axes[:-1]), P(*axes)

    def share(variables: PyTree, state: PyTree, u: Array, dt: Any, edits: "Edits") -> Any:
        part = nnx.merge(graphdef, variables)
        y, last = (part.on_chunk if axes[-1] else part.whole)(state, u, dt, edits)
        return y, None if state is None else last

    return jax.shard_map(
        share,
        in_specs=(P(), by_example, by_step, P(), by_step),
        out_specs=(by_step, by_example),
        check_vma=False,
    )(variables, state, u, dt, edits)


def take_turns(
    layer: "SequenceLayer",
    state: PyTree[Array],
    u: Inexact[Array, "*batch L H"],
    dt: Array | float | None,
    edits: "Edits",
) -> tuple[Inexact[Array, "*batch L H"], PyTree[Array]]:
    """One device's part of any layer: exact, with a part of the memory, but no faster.

    Devices find the states at their ends, one after the other, and then all their outputs at once.
    """

    def pass_over(state: PyTree[Array], *, backward: bool = False) -> tuple[Array, PyTree[Array]]:
        """One of the two maps; outputs of the backward one are yet to be delivered."""
        if not edits.plain:
            return layer.generic_scan(state, u, dt, edits, backward=backward)
        coefficients = layer.coefficients(dt, backward=backward)
        if not backward:
            return layer.parallel(coefficients, state, u)
        y, last = layer.parallel(coefficients, state, jnp.flip(u, -2))
        return jnp.flip(y, -2), last

    start, last = _relay(lambda x: pass_over(x)[1], state)
    y, _ = pass_over(start)
    if not layer.bidirectional:
        return y, last
    rest = layer.init_state(u.shape[:-2])
    cut = None if edits.resets is None else edits.resets[..., 0]

    def leave(x: PyTree[Array]) -> PyTree[Array]:
        _, x = pass_over(x, backward=True)
        return x if cut is None else jax.tree.map(lambda x, r: select(cut, r, x), x, rest)

    start, _ = _relay(leave, rest, reverse=True)
    reverse, _ = pass_over(start, backward=True)
    ahead = reverse[..., :1, :]
    ahead = ahead if cut is None else select(cut, jnp.zeros_like(ahead), ahead)
    n = jax.lax.axis_size(TIME)
    ahead = jax.lax.ppermute(ahead, TIME, [(i + 1, i) for i in range(n - 1)])
    return y + layer.deliver(reverse, edits.resets, ahead), last


def _relay(
    f: Callable[[PyTree[Array]], PyTree[Array]], state: PyTree[Array], *, reverse: bool = False
) -> tuple[PyTree[Array], PyTree[Array]]:
    """The states before this device's steps and after all, if ``f`` takes one across its steps.

    The gradient runs ``f`` once more, so that memory is that of one turn.
    """
    me = jax.lax.axis_index(TIME)

    def turn(state: PyTree[Array], device: Array) -> tuple[PyTree[Array], PyTree[Array]]:
        after = jax.lax.cond(device == me, f, lambda state: state, state)
        return jax.tree.map(lambda x: _from(device == me, x), after), state

    turns = jnp.arange(jax.lax.axis_size(TIME))
    body = jax.checkpoint(turn, prevent_cse=False)
    last, before = jax.lax.scan(body, state, turns, reverse=reverse)
    return jax.tree.map(lambda x: x[me], before), last


def split_scan(
    a: Complex[Array, " P"] | Complex[Array, "*batch L P"],
    b: Float[Array, "*batch L 2 P"],
    x0: Complex[Array, "*batch P"] | None = None,
    *,
    reverse: bool = False,
    resets: Bool[Array, "*batch L"] | None = None,
    backend: Backend = "auto",
) -> Float[Array, "*batch L 2 P"]:
    r"""`s5jax.ops.pair_scan` of all steps, of which each device has its own.

    .. math:: x_k = x^0_k + (a_1 \cdots a_k)\, x_{\text{before}}

    with :math:`x^0` the scan from zero of this device's steps, and the state before them from the
    last states and the products of all devices, all that they exchange. A product is zero from a
    reset on, and what is multiplied with zero is left out.
    """
    constant = a.ndim == 1 and resets is None
    options: dict[str, Any] = {"reverse": reverse, "resets": resets, "backend": backend}
    x = pair_scan(a, b, **options)
    end = 0 if reverse else -1
    last = pair_to_complex(x[..., end, :, :], axis=-2)
    shape = (b.shape[-3], b.shape[-1]) if constant else (*b.shape[:-2], b.shape[-1])
    one = jnp.ones((*shape[:-2], shape[-1]), last.dtype)
    decay = linear_scan(a, jnp.zeros(shape, last.dtype), one, **options)
    leaving = decay[..., end, :], last
    if reverse and resets is not None:
        leaving = tuple(select(resets[..., 0], jnp.zeros_like(v), v) for v in leaving)

    def cross(state: Array, device: tuple[Array, Array]) -> tuple[Array, Array]:
        return _times(device[0], state) + device[1], state

    start = jnp.zeros_like(last) if x0 is None else x0.astype(last.dtype)
    _, before = jax.lax.scan(cross, start, jax.lax.all_gather(leaving, TIME), reverse=reverse)
    rest = _times(decay, before[jax.lax.axis_index(TIME)][..., None, :])
    return x + complex_to_pair(rest, axis=-2)


def last_state(
    mine: Inexact[Array, "*batch P"], state: Inexact[Array, "*batch P"], u: Array, edits: "Edits"
) -> Inexact[Array, "*batch P"]:
    """The state of the device on which a sequence ends; that before its first step if it is empty.

    ``mine`` is the state after this device's steps that are not padding.
    """
    L = u.shape[-2]
    length = jnp.full(u.shape[:-2], L) if edits.valid is None else edits.valid.sum(-1)
    total = jax.lax.psum(length, TIME)
    ends_here = jax.lax.axis_index(TIME) == (total - 1) // L
    return select(total > 0, _from(ends_here, mine), state)


def exchange(x: Array, *, split: int, join: int) -> Array:
    """Cuts one axis into a share for each device, and joins the shares of all along another."""
    return jax.lax.all_to_all(x, TIME, split % x.ndim, join % x.ndim, tiled=True)


def own_share(x: Array, axis: int) -> Array:
    """This device's share of an axis that is whole on each."""
    size = x.shape[axis] // jax.lax.axis_size(TIME)
    return jax.lax.dynamic_slice_in_dim(x, jax.lax.axis_index(TIME) * size, size, axis)


def gather(x: Array, axis: int) -> Array:
    """An axis that is whole on each device, from their shares."""
    return jax.lax.all_gather(x, TIME, axis=axis % x.ndim, tiled=True)


def check_shares(layer: nnx.Module, name: str, size: int) -> int:
    """The number of devices; raises a ValueError unless it divides what they share among them."""
    n = jax.lax.axis_size(TIME)
    if size % n:
        raise ValueError(
            f"{type(layer).__name__}: `{name}` must be a multiple of {n}, because the mesh splits "
            f"time over {n} devices, which exchange steps for a share of it; got {size}. Use "
            "fewer devices on the axis `seq`."
        )
    return n


def _check_length(layer: nnx.Module, u: Array, time: str | None) -> None:
    n = jax.sharding.get_abstract_mesh().shape[time] if time else 1
    if u.shape[-2] % n:
        raise ValueError(
            f"{type(layer).__name__}: the mesh splits time over {n} devices, so the length of `u` "
            f"must be a multiple of {n}; got {u.shape[-2]}. Pad the sequences and give their "
            "`lengths`, or use a mesh without the axis `seq`."
        )


def _from(here: Array, x: Array) -> Array:
    """The value of the device where ``here`` is true, for all."""
    return jax.lax.psum(select(here, x, 0), TIME)


def _times(factor: Array, x: Array) -> Array:
    return factor * jnp.where(factor == 0, 0, x)
