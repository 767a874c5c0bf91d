"""S5 on whole sequences in one call: fused kernels for GPUs, and their reference."""

import functools

import jax.numpy as jnp
from jaxtyping import Array, Complex, Float

from s5jax._promotion import default_promotion, with_axes
from s5jax.ops._platform import target_platform
from s5jax.ops._scan import linear_scan

_MAX_STATES, _MAX_FEATURES = 256, 512
_DTYPES = ("float32", "bfloat16", "float16")


@default_promotion
def s5_scan(
    Lambda_bar: Complex[Array, " P"],
    B_bar: Complex[Array, "P H"],
    C: Complex[Array, "H P"],
    u: Float[Array, "*batch L H"],
    x0: Complex[Array, "*batch P"] | None = None,
    *,
    D: Float[Array, " H"] | None = None,
    reverse: bool = False,
    interpret: bool = False,
) -> tuple[Float[Array, "*batch L H"], Complex[Array, "*batch P"]]:
    r"""Runs S5's input projection, scan and output projection in fused Pallas kernels for GPUs.

    .. math:: x_k = \bar\Lambda x_{k-1} + \bar B u_k, \qquad
       y_k = \operatorname{Re}(C x_k) + D \odot u_k

    or, with ``reverse``, :math:`x_k = \bar\Lambda x_{k+1} + \bar B u_k`. The states stay on the
    chip: one in 32 is stored, and the gradient recomputes the others. Only first derivatives in
    reverse mode are supported. Matrix products are in the dtype of ``u``. They accumulate in
    float32, in which the recurrence runs. A float32 product is three TF32 products, which preserves
    its accuracy.

    ``u`` is copied unless ``L`` is a multiple of 32 and ``H`` a multiple of 16. The states are
    padded to a power of two. On several devices, call the function under `jax.shard_map`, because
    XLA does not partition a kernel.

    Args:
        Lambda_bar: discrete eigenvalues, ``(P,)`` with P up to 256.
        B_bar: discrete input matrix, ``(P, H)`` with H up to 512.
        C: output matrix, ``(H, P)``, including the factor 2 if only one state of each conjugate
            pair is kept.
        u: inputs, ``(*batch, L, H)``, in float32, bfloat16 or float16.
        x0: state before the first step (after the last one with ``reverse``), ``(*batch, P)``;
            zero if omitted.
        D: skip connection, ``(H,)``; none if omitted.
        reverse: run backward in time.
        interpret: run the kernels as plain JAX operations, slowly and on any device; for tests.

    Returns:
        Outputs ``(*batch, L, H)`` in the dtype of ``u``, and the state after the last step (before
        the first one with ``reverse``), ``(*batch, P)``.

    Raises:
        ValueError: if there is no GPU, or a shape or dtype is not as above.

    Example:
        >>> import jax
        >>> import jax.numpy as jnp
        >>> from s5jax.ops import s5_scan
        >>> scan = jax.jit(s5_scan, static_argnames="interpret")
        >>> half, one = jnp.array([0.5 + 0j]), jnp.ones((1, 1), "complex64")
        >>> y, last = scan(half, one, one, jnp.ones((4, 1)), interpret=True)
        >>> print(y[:, 0], last)
        [1.    1.5   1.75  1.875] [1.875+0.j]

    References:
        Smith et al., "Simplified State Space Layers" (S5), 2023, https://arxiv.org/abs/2208.04933.
    """
    check_system("s5_scan", Lambda_bar, B_bar, C, u, x0, D)
    _check_kernels(Lambda_bar, B_bar, C, u, x0)
    if not interpret and target_platform() != "gpu":
        raise ValueError(
            "s5_scan: the kernels run on a GPU, but the default device is a "
            f"{target_platform()}. Use `linear_scan` between two products, or another "
            "`algorithm` than 'pallas' in a layer."
        )
    from s5jax.ops._s5_pallas import fused_scan  # not above: Pallas takes time to import

    x0 = jnp.zeros((*u.shape[:-2], *Lambda_bar.shape), jnp.complex64) if x0 is None else x0
    D = jnp.zeros(u.shape[-1:]) if D is None else D
    return fused_scan(Lambda_bar, B_bar, C, D, u, x0, reverse=reverse, interpret=interpret)


@default_promotion
def s5_scan_ref(
    Lambda_bar: Complex[Array, " P"],
    B_bar: Complex[Array, "P H"],
    C: Complex[Array, "H P"],
    u: Float[Array, "*batch L H"],
    x0: Complex[Array, "*batch P"] | None = None,
    *,
    D: Float[Array, " H"] | None = None,
    reverse: bool = False,
) -> tuple[Float[Array, "*batch L H"], Complex[Array, "*batch P"]]:
    """`s5_scan` by `linear_scan` between two products, on any device and of any size; for tests.

    Example:
        >>> import jax.numpy as jnp
        >>> from s5jax.ops import s5_scan_ref
        >>> half, one = jnp.array([0.5 + 0j]), jnp.ones((1, 1), "complex64")
        >>> y, last = s5_scan_ref(half, one, one, jnp.ones((3, 1)), reverse=True)
        >>> print(y[:, 0], last)
        [1.75 1.5  1.  ] [1.75+0.j]
    """
    check_system("s5_scan", Lambda_bar, B_bar, C, u, x0, D)
    product = functools.partial(jnp.matmul, precision="highest")
    x = linear_scan(Lambda_bar, product(u, B_bar.T), x0, reverse=reverse)
    y = product(x, C.T).real
    if D is not None:
        y = y + with_axes(D, u) * u
    return y.astype(u.dtype), x[..., 0 if reverse else -1, :]


def check_system(
    where: str,
    Lambda_bar: Array,
    B_bar: Array,
    C: Array,
    u: Array,
    x0: Array | None,
    D: Array | None,
) -> None:
    """Raises a ValueError unless the shapes of a system and of its inputs fit."""
    if Lambda_bar.ndim != 1:
        raise ValueError(
            f"{where}: `Lambda_bar` must be constant over time, of shape (P,); got "
            f"{Lambda_bar.shape}. Use `linear_scan` for coefficients per step."
        )
    if u.ndim < 2 or u.shape[-2] < 1:
        raise ValueError(f"{where}: `u` must have shape (*batch, L, H), L >= 1; got {u.shape}.")
    P, H = Lambda_bar.shape[0], u.shape[-1]
    expected = {
        "B_bar": (B_bar, (P, H)),
        "C": (C, (H, P)),
        "x0": (x0, (*u.shape[:-2], P)),
        "D": (D, (H,)),
    }
    for name, (array, shape) in expected.items():
        if array is not None and array.shape != shape:
            raise ValueError(
                f"{where}: `{name}` must have shape {shape} to fit `Lambda_bar` of shape "
                f"{Lambda_bar.shape} and `u` of shape {u.shape}; got {array.shape}."
            )


def _check_kernels(Lambda_bar: Array, B_bar: Array, C: Array, u: Array, x0: Array | None) -> None:
    P, H = Lambda_bar.shape[0], u.shape[-1]
    for name, argument, size, largest in (
        ("states", "Lambda_bar", P, _MAX_STATES),
        ("features", "u", H, _MAX_FEATURES),
    ):
        if size > largest:
            raise ValueError(
                f"s5_scan: `{argument}` may have at most {largest} {name}, because more do not fit "
                f"into one multiprocessor of a GPU; got {size}. Use `linear_scan` between two "
                "products, or another `algorithm` than 'pallas' in a layer."
            )
    if u.dtype not in _DTYPES:
        raise ValueError(
            f"s5_scan: `u` must have one of the dtypes {', '.join(_DTYPES)}; got {u.dtype}."
        )
    arrays = {"Lambda_bar": Lambda_bar, "B_bar": B_bar, "C": C, "x0": x0}
    for name, array in arrays.items():
        if array is not None and array.dtype != jnp.complex64:
            raise ValueError(f"s5_scan: `{name}` must be complex64; got {array.dtype}.")
