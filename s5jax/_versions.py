"""The versions of Python, JAX and Flax that this library runs on; importing this file checks them.

JAX 0.11.1 and 0.11.2 renamed parts of ``jax.experimental.hijax``, which ``flax.nnx`` imports. Flax
0.12.10 is the first that works with every version of JAX from 0.10 on.
"""

import importlib.metadata
import platform
import re

import jax

PYTHON, JAX, FLAX, RENAMED_JAX, RENAMED_FLAX = "3.11", "0.10", "0.12.7", "0.11.1", "0.12.10"


def check_versions(python: str, jax: str, flax: str) -> None:
    """Raises an ImportError unless the library runs on these versions."""
    _check("Python", python, PYTHON, "use a newer Python")
    _check("jax", jax, JAX, "run: pip install --upgrade jax flax")
    if _numbers(jax) < _numbers(RENAMED_JAX):
        _check("flax", flax, FLAX, "run: pip install --upgrade flax")
    else:
        _check(f"flax with jax {jax}", flax, RENAMED_FLAX, "run: pip install --upgrade flax")


def _check(name: str, received: str, oldest: str, remedy: str) -> None:
    if _numbers(received) < _numbers(oldest):
        raise ImportError(f"s5jax: {name} must be {oldest} or newer; got {received}: {remedy}.")


def _numbers(version: str) -> "list[int]":
    return [int(number) for number in re.findall(r"\d+", version)[:3]]


check_versions(platform.python_version(), jax.__version__, importlib.metadata.version("flax"))
