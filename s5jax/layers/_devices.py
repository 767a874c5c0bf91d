"""Sequences that are split over devices: which device holds which steps, and what they exchange.

The convention is a mesh, `jax.set_mesh`, with an axis ``data`` over which examples are divided, or
``seq`` over which time is, or both. The compiler places everything outside of the layers (the axes
are `jax.sharding.AxisType.Auto`; `s5jax.layers._explicit` makes others so). Inside a layer each
device works on its own share, even if only examples are divided: otherwise the compiler gathers all
examples on every device for a Fourier transform.
"""

from collections.abc import Callable
from typing import Any, Protocol, TypeVar, runtime_checkable

import jax
import jax.numpy as jnp
from flax import nnx
from jax.sharding import AxisType
from jax.sharding import PartitionSpec as P
from jaxtyping import Array, Bool, Complex, Float, Inexact, PyTree

from s5jax._promotion import with_axes
from s5jax.layers._edits import Edits, select
from s5jax.ops import ScanAlgorithm, complex_to_pair, linear_scan, pair_scan, pair_to_complex
from s5jax.ops._blocks import entering_states, power

TIME = "seq"
EXAMPLES = "data"


@runtime_checkable
class Sized(Protocol):
    """A layer with a number of features."""

    d_model: int


M = TypeVar("M", bound=Sized)
Run = Callable[[M, PyTree, Array, Edits], tuple[Array, PyTree]]


def placement(shape: tuple[int, ...]) -> tuple[str | None, ...]:
    """Returns the mesh axes that divide the axes of a ``(*batch, L, H)`` array, without the last.

    The first batch axis and time may be divided. All are None without a mesh in the context, and
    within one device's share.
    """
    mesh = jax.sharding.get_abstract_mesh()
    types = dict(zip(mesh.axis_names, mesh.axis_types, strict=True))
    data, seq = (
        mesh.shape[axis] if types.get(axis) == AxisType.Auto else 1 for axis in (EXAMPLES, TIME)
    )
    divides = data > 1 and shape[0] % data == 0
    batch = [EXAMPLES if divides and i == 0 else None for i in range(len(shape) - 2)]
    return (*batch, TIME if seq > 1 else None)


def along_time(x: Inexact[Array, "*batch L H"]) -> Inexact[Array, "*batch L H"]:
    """Places an array so that each device has its examples and its steps, if time is split."""
    axes = placement(x.shape)
    return jax.lax.with_sharding_constraint(x, P(*axes)) if axes[-1] else x


def over_devices(
    layer: M,
    run_whole: Run[M],
    run_shard: Run[M],
    state: PyTree[Array] | None,
    u: Inexact[Array, "*batch L H"],
    edits: Edits,
) -> tuple[Inexact[Array, "*batch L out"], PyTree[Array] | None]:
    """Runs a layer on the share of each device: ``run_shard`` if time is split, else ``run_whole``.

    Both are methods, and take the layer, a state, inputs and edits.
    """
    axes = placement(u.shape)
    _check_length(layer, u, axes[-1])
    graphdef, variables = nnx.split(layer)
    by_example, by_step = P(*axes[:-1]), P(*axes)
    by_edit = jax.tree.map(lambda edit: by_step if edit.ndim else P(), edits)
    run = run_shard if axes[-1] else run_whole

    def share(variables: PyTree, state: PyTree, u: Array, edits: Edits) -> Any:
        return run(nnx.merge(graphdef, variables), state, u, edits)

    return jax.shard_map(
        share,
        in_specs=(P(), by_example, by_step, by_edit),
        out_specs=(by_step, by_example),
        check_vma=False,
    )(variables, state, u, edits)


def relay(
    f: Callable[[PyTree[Array]], PyTree[Array]], state: PyTree[Array], *, reverse: bool = False
) -> tuple[PyTree[Array], PyTree[Array]]:
    """Passes a state through the steps of one device after another.

    The gradient runs ``f`` once more, so that it keeps the steps of one device only.

    Args:
        f: takes a state across this device's steps.
        state: state before the steps of all devices.
        reverse: start with the last device.

    Returns:
        The states before this device's steps and after the steps of all.
    """
    me = jax.lax.axis_index(TIME)

    def cross(state: PyTree[Array], device: Array) -> tuple[PyTree[Array], PyTree[Array]]:
        after = jax.lax.cond(device == me, f, lambda state: state, state)
        return jax.tree.map(lambda x: _from(device == me, x), after), state

    devices = jnp.arange(jax.lax.axis_size(TIME))
    body = jax.checkpoint(cross, prevent_cse=False)
    last, before = jax.lax.scan(body, state, devices, reverse=reverse)
    return jax.tree.map(lambda x: x[me], before), last


def next_share(x: Array) -> Array:
    """Returns the value of the device that holds the following steps; zero on the last device."""
    n = jax.lax.axis_size(TIME)
    pairs = [(i + 1, i) for i in range(n - 1)]
    return _as_reals(lambda x: jax.lax.ppermute(x, TIME, pairs), x)


def feature_share(layer: M, n: int) -> M:
    """Returns the layer of this device's share of the features, of n equal ones.

    A parameter names the axis of features in its metadata, ``feature_axis``. One with fewer entries
    than features serves them in rotation.
    """
    H = layer.d_model
    graphdef, variables = nnx.split(layer)

    def cut(variable: nnx.Variable) -> nnx.Variable:
        axis = variable.get_metadata().get("feature_axis")
        if axis is None:
            return variable
        v = variable[...]
        return variable.replace(own_share(jnp.concatenate([v] * (H // v.shape[axis]), axis), axis))

    is_variable = lambda x: isinstance(x, nnx.Variable)  # noqa: E731
    share = nnx.merge(graphdef, jax.tree.map(cut, variables, is_leaf=is_variable))
    share.d_model = H // n
    return share


def split_scan(
    a: Complex[Array, " P"] | Complex[Array, "*batch L P"],
    b: Float[Array, "*batch L 2 P"],
    x0: Complex[Array, "*batch P"] | None = None,
    *,
    reverse: bool = False,
    resets: Bool[Array, "*batch L"] | None = None,
    algorithm: ScanAlgorithm = "auto",
) -> Float[Array, "*batch L 2 P"]:
    r"""Runs `s5jax.ops.pair_scan` over steps that are split over devices.

    .. math:: x_k = x^0_k + (a_1 \cdots a_k)\, x_{\text{before}}

    with :math:`x^0` the scan of this device's steps from zero. Devices exchange their last states
    and products only, from which each finds the state before its steps. A product is zero from a
    reset on, and a state that it multiplies is left out.
    """
    constant = a.ndim == 1 and resets is None
    options: dict[str, Any] = {"reverse": reverse, "resets": resets, "algorithm": algorithm}
    x = pair_scan(a, b, **options)
    end = 0 if reverse else -1
    last = pair_to_complex(x[..., end, :, :], axis=-2)
    shape = (b.shape[-3], b.shape[-1]) if constant else (*b.shape[:-2], b.shape[-1])
    one = jnp.ones((*shape[:-2], shape[-1]), last.dtype)
    decay = linear_scan(a, jnp.zeros(shape, last.dtype), one, **options)
    leaving = decay[..., end, :], last
    if reverse and resets is not None:
        leaving = tuple(select(resets[..., 0], jnp.zeros_like(v), v) for v in leaving)
    everyone = tuple(_as_reals(lambda v: jax.lax.all_gather(v, TIME), v) for v in leaving)

    def cross(state: Array, device: tuple[Array, ...]) -> tuple[Array, Array]:
        return _times(device[0], state) + device[1], state

    start = jnp.zeros_like(last) if x0 is None else x0.astype(last.dtype)
    _, before = jax.lax.scan(cross, start, everyone, reverse=reverse)
    rest = _times(decay, before[jax.lax.axis_index(TIME)][..., None, :])
    return x + complex_to_pair(rest, axis=-2)


def split_entering(
    reverse: bool,
    a: Float[Array, "2 P"],
    e: Float[Array, "*batch n N"],
    x0: Float[Array, "*batch N"],
) -> tuple[Float[Array, "*batch n N"], Float[Array, "*batch N"]]:
    """Runs `s5jax.ops._blocks.entering_states` over blocks that are split over devices.

    To the devices it is the same recurrence, of the states that each makes from zero. The last
    state is the one after the blocks of all devices.
    """
    _, made = entering_states(reverse, a, e, jnp.zeros_like(x0))
    everyone = jax.lax.all_gather(made, TIME, axis=made.ndim - 1)
    before, last = entering_states(reverse, power(a, e.shape[-2]), everyone, x0)
    return entering_states(reverse, a, e, before[..., jax.lax.axis_index(TIME), :])[0], last


def last_state(
    mine: Inexact[Array, "*batch P"], state: Inexact[Array, "*batch P"], u: Array, edits: Edits
) -> Inexact[Array, "*batch P"]:
    """Returns the state of the device on which a sequence ends; ``state`` if it is empty.

    ``mine`` is the state after this device's steps that are not padding.
    """
    L = u.shape[-2]
    length = jnp.full(u.shape[:-2], L) if edits.valid is None else edits.valid.sum(-1)
    total = jax.lax.psum(length, TIME)
    ends_here = jax.lax.axis_index(TIME) == (total - 1) // L
    return select(total > 0, _from(ends_here, mine), state)


def gather_edits(edits: Edits) -> Edits:
    """Returns the edits of all steps, on each device."""
    return jax.tree.map(lambda edit: gather(edit, -1) if edit.ndim else edit, edits)


def exchange(x: Array, *, split: int, join: int) -> Array:
    """Splits one axis over the devices, and joins the shares of all devices along another."""
    axes = split % x.ndim, join % x.ndim
    return _as_reals(lambda x: jax.lax.all_to_all(x, TIME, *axes, tiled=True), x)


def own_share(x: Array, axis: int) -> Array:
    """Returns this device's share of an axis that every device has whole."""
    size = x.shape[axis] // jax.lax.axis_size(TIME)
    return jax.lax.dynamic_slice_in_dim(x, jax.lax.axis_index(TIME) * size, size, axis)


def gather(x: Array, axis: int) -> Array:
    """Returns a whole axis on every device, from their shares."""
    axis %= x.ndim
    return _as_reals(lambda x: jax.lax.all_gather(x, TIME, axis=axis, tiled=True), x)


def check_shares(layer: object, name: str, size: int) -> int:
    """Returns the number of devices; raises a ValueError unless it divides ``size``."""
    n = jax.lax.axis_size(TIME)
    if size % n:
        raise ValueError(
            f"{type(layer).__name__}: `{name}` must be a multiple of {n}, because the mesh splits "
            f"time over {n} devices, which exchange steps for a share of it; got {size}. Use "
            "fewer devices on the axis `seq`."
        )
    return n


def _check_length(layer: object, u: Array, time: str | None) -> None:
    n = jax.sharding.get_abstract_mesh().shape[time] if time else 1
    if u.shape[-2] % n:
        raise ValueError(
            f"{type(layer).__name__}: the mesh splits time over {n} devices, so the length of `u` "
            f"must be a multiple of {n}; got {u.shape[-2]}. Pad the sequences and give their "
            "`lengths`, or use a mesh without the axis `seq`."
        )


def _from(here: Array, x: Array) -> Array:
    """Sends the value of the device where ``here`` is true to all."""
    return _as_reals(lambda x: jax.lax.psum(x, TIME), select(here, x, 0))


def _as_reals(f: Callable[[Array], Array], x: Array) -> Array:
    """Exchanges complex numbers as real and imaginary parts, because TPUs exchange only reals."""
    return pair_to_complex(f(complex_to_pair(x))) if jnp.iscomplexobj(x) else f(x)


def _times(factor: Array, x: Array) -> Array:
    factor = with_axes(factor, x)
    return factor * jnp.where(factor == 0, 0, x)
