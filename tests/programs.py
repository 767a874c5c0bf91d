"""What is in a program, all programs inside it included."""

import math
import re
from collections.abc import Callable, Iterator
from typing import Any

import jax
from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn


def equations(f: Callable[..., Any], *arguments: Any) -> Iterator[JaxprEqn]:
    """Every equation of a function, those in loops, branches and rules of derivatives included."""
    yield from _equations(jax.make_jaxpr(f)(*arguments).jaxpr)


def _equations(jaxpr: Jaxpr) -> Iterator[JaxprEqn]:
    for equation in jaxpr.eqns:
        yield equation
        for value in jax.tree.leaves(equation.params, is_leaf=_is_program):
            if _is_program(value):
                yield from _equations(value.jaxpr if isinstance(value, ClosedJaxpr) else value)


def _is_program(value: Any) -> bool:
    return isinstance(value, ClosedJaxpr | Jaxpr)


def collectives(program: jax.stages.Compiled) -> list[tuple[str, int]]:
    """Operations between devices of a compiled program: names, and numbers of elements put out.

    Operations on several arrays, and those that only start, count like others.
    """
    names = "all-gather|all-reduce|all-to-all|collective-permute|reduce-scatter"
    found = re.findall(rf"= ([^=]*?) ({names})(?:-start)?\(", program.as_text())
    return [
        (name, math.prod(int(n) for n in sizes.split(",") if n))
        for shapes, name in found
        for sizes in re.findall(r"\w+\[([\d,]*)\]", shapes)
    ]
