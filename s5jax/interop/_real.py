"""Functions in real arithmetic, with what does not depend on their arguments as constants.

Runtimes for small devices know no complex numbers. `real_function` traces a function and evaluates
its program again, once, with a pair of arrays for each complex one, so that what remains are
products and sums of reals. It is enough for steps of layers, which are linear in complex values.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.core import Tracer
from jax.extend.core import Jaxpr, Literal, Primitive
from jaxtyping import Array

SEPARATE = {
    *("add", "add_any", "sub", "neg", "reduce_sum", "broadcast_in_dim", "reshape", "squeeze"),
    *("tile", "transpose", "slice", "rev", "concatenate", "stop_gradient", "copy"),
}
"""Operations that act on real and imaginary parts separately, whatever the arguments are."""

INLINED = {"jit": "jaxpr", "custom_jvp_call": "call_jaxpr"}
"""Operations that call a program, and the parameter that holds it."""


class Pair(NamedTuple):
    """A complex array."""

    re: Array
    im: Array


def real_function(
    function: Callable[..., tuple[Array, ...]], specs: Sequence[jax.ShapeDtypeStruct]
) -> Callable[..., tuple[Array, ...]]:
    """Returns a function of reals that equals a function of complex arrays.

    Args:
        function: maps arrays to a tuple of arrays.
        specs: their shapes and dtypes.

    Returns:
        The same function, where a complex argument or result of shape ``(*shape)`` is a real one of
        shape ``(*shape, 2)``.

    Raises:
        ValueError: when it is called, if a complex operation on its arguments is not one of sums,
            products and changes of shape.
    """
    program = jax.make_jaxpr(function)(*specs)

    def real(*arguments: Array) -> tuple[Array, ...]:
        values = [
            Pair(*(lax.index_in_dim(x, i, -1, keepdims=False) for i in (0, 1)))
            if jnp.issubdtype(spec.dtype, jnp.complexfloating)
            else x
            for x, spec in zip(arguments, specs, strict=True)
        ]
        results = _evaluate(program.jaxpr, program.consts, values)
        return tuple(jnp.stack(y, -1) if isinstance(y, Pair) else jnp.copy(y) for y in results)

    return real


def _evaluate(jaxpr: Jaxpr, consts: Sequence[Any], arguments: Sequence[Any]) -> list[Any]:
    """Evaluates a program; what depends on constants alone is computed now."""
    values = dict(zip([*jaxpr.constvars, *jaxpr.invars], [*consts, *arguments], strict=True))

    def read(atom: Any) -> Any:
        return atom.val if isinstance(atom, Literal) else values[atom]

    for equation in jaxpr.eqns:
        primitive, params = equation.primitive, equation.params
        operands = [read(atom) for atom in equation.invars]
        is_complex = any(map(_is_complex, (*equation.invars, *equation.outvars)))
        if primitive.name in INLINED:
            inner = params[INLINED[primitive.name]]
            results = _evaluate(inner.jaxpr, inner.consts, operands)
        elif primitive.name == "reshard":  # on one device
            results = operands[0]
        elif not any(isinstance(x, Tracer | Pair) for x in operands):
            with jax.ensure_compile_time_eval():
                results = primitive.bind(*operands, **params)
        elif is_complex:
            results = _bind_complex(primitive, operands, params)
        else:
            results = primitive.bind(*operands, **params)
        results = results if primitive.multiple_results else [results]
        values.update(zip(equation.outvars, results, strict=True))
    return [read(atom) for atom in jaxpr.outvars]


def _is_complex(atom: Any) -> bool:
    return jnp.issubdtype(atom.aval.dtype, jnp.complexfloating)


def _bind_complex(primitive: Primitive, operands: Sequence[Any], params: dict[str, Any]) -> Any:
    """Applies an operation that has a complex argument or result, of which some are not known."""
    name = primitive.name
    if name == "complex":
        return Pair(*operands)
    if name == "convert_element_type":
        (x,) = operands
        dtype = jnp.finfo(params["new_dtype"]).dtype
        x = x if isinstance(x, Pair) else Pair(x, jnp.zeros_like(x))
        return Pair(*(part.astype(dtype) for part in x))
    if name == "select_n":
        which, *cases = operands
        parts = zip(*map(_as_pair, cases), strict=True)
        return Pair(*(lax.select_n(which, *part) for part in parts))
    pairs = [_as_pair(x) for x in operands]
    if name in SEPARATE:
        parts = zip(*pairs, strict=True)
        return Pair(*(primitive.bind(*part, **params) for part in parts))
    a, b = pairs if len(pairs) == 2 else (pairs[0], pairs[0])
    if name in ("mul", "dot_general"):

        def times(x: Array, y: Array) -> Array:
            return primitive.bind(x, y, **params | _real_product(params))

        re, im = times(a.re, b.re) - times(a.im, b.im), times(a.re, b.im) + times(a.im, b.re)
        return Pair(re, im)
    unary = {"real": a.re, "imag": a.im, "conj": Pair(a.re, -a.im)}
    if name not in unary:
        raise ValueError(
            "real_function: complex operations on inputs and states must be sums, products and "
            f"changes of shape; got `{name}`. Export the model by export_stablehlo."
        )
    return unary[name]


def _real_product(params: dict[str, Any]) -> dict[str, Any]:
    """The dtype of the result of a product, where its parameters name one."""
    dtype = params.get("preferred_element_type")
    return {} if dtype is None else {"preferred_element_type": jnp.finfo(dtype).dtype}


def _as_pair(x: Any) -> Pair:
    if isinstance(x, Pair):
        return x
    with jax.ensure_compile_time_eval():
        return Pair(jnp.real(x), jnp.imag(x))
