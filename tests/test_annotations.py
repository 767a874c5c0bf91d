"""The annotations of s5jax are run: what `annotations.check` notices, and where it looks."""

import ast
import inspect
from pathlib import Path
from typing import Literal

import annotations
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jaxtyping import Array, Float, TypeCheckError, jaxtyped

import s5jax
from s5jax import S5, SequenceLabeler, generate, init, interop, ops
from s5jax._promotion import default_promotion

checked = jaxtyped(typechecker=annotations.check)


@checked
def double(x: Float[Array, "n"]) -> Float[Array, "n"]:
    return 2 * x


@checked
def mean(x: Float[Array, "n"], *, return_state: bool = False, **options: int) -> Float[Array, "n"]:
    return jnp.mean(x)


@checked
def total(rule: Literal["zoh"], x: Float[Array, "n"]) -> float:
    if rule != "zoh":
        raise ValueError(f"total: `rule` must be 'zoh'; got {rule!r}.")
    return float(x.sum())


def test_a_wrong_result_is_noticed():
    for f in (mean, jax.jit(mean)):
        with pytest.raises(TypeCheckError, match=r"the return value of .*mean"):
            f(jnp.ones(3))


def test_a_wrong_parameter_that_is_accepted_is_noticed():
    assert double(jnp.ones(3)).shape == (3,)
    for wrong in (np.ones(3, np.float32), jnp.arange(3), jnp.ones((3, 1))):
        with pytest.raises(TypeCheckError, match="double") as error:
            double(wrong)
        assert "parameter x=" in str(error.value.__cause__)


def test_a_refusal_has_its_own_words():
    assert total("zoh", jnp.ones(3)) == 3
    with pytest.raises(ValueError, match="total: `rule` must be 'zoh'; got 'foh'"):
        total("foh", jnp.ones(3))
    with pytest.raises(TypeCheckError, match="total"):
        total("zoh", jnp.ones((3, 3)))


class Convertible:
    """What `numpy.asarray` converts, but no annotation names."""

    def __init__(self, *shape):
        self.shape_of_ones = shape

    def __array__(self, *args, **kwargs):
        return np.ones(self.shape_of_ones, np.float32)


def test_decorators_of_the_library_hide_no_check():
    with pytest.raises(TypeCheckError, match="mean"):
        default_promotion(mean)(jnp.ones(3))
    layer = S5(4, d_state=4, rngs=nnx.Rngs(0))
    model = SequenceLabeler(
        S5, d_input=4, d_output=2, d_model=4, n_layers=1, norm="layer",
        layer_options={"d_state": 4}, rngs=nnx.Rngs(0))  # fmt: skip
    calls = {
        "linear_scan": lambda: ops.linear_scan(np.ones(4), jnp.ones((3, 4))),  # an array of NumPy
        "_discretize": lambda: ops.phi1(np.ones(4, np.float32)),  # behind `jax.custom_jvp`
        "SequenceLayer.__call__": lambda: layer(jnp.ones((3, 4)), dt=Convertible()),
        "algorithm_for": lambda: layer.algorithm_for("3"),  # behind `Unlisted`
        "SequenceModule.__call__": lambda: model(Convertible(1, 3, 4)),
        "SequenceModule.step": lambda: model.step(Convertible(4), model.init_state()),
    }
    for name, call in calls.items():
        with pytest.raises(TypeCheckError, match=name):
            call()


@pytest.mark.parametrize("package", [s5jax, ops, init, interop], ids=lambda p: p.__name__)
def test_every_function_and_method_is_checked(package):
    functions = [f for f in vars(package).values() if inspect.isfunction(f)]
    for cls in filter(inspect.isclass, vars(package).values()):
        functions += [f for f in vars(cls).values() if inspect.isfunction(f)]
    folder = str(Path(s5jax.__file__).parent)
    written = [f for f in functions if inspect.unwrap(f).__code__.co_filename.startswith(folder)]
    assert generate in written or package is not s5jax
    for f in written:
        assert is_checked(f), f.__qualname__


def is_checked(f):
    """Whether a function of jaxtyping is among those that were wrapped into it."""
    while f is not None:
        if f.__code__.co_filename.endswith("jaxtyping/_decorator.py"):
            return True
        f = getattr(f, "__wrapped__", None)
    return False


def test_every_function_that_has_annotations_has_one_of_its_result():
    """Without it jaxtyping does not call what checks the parameters."""
    silent = [
        f"{path}:{node.lineno}"
        for path in Path(s5jax.__file__).parent.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef) and node.returns is None
    ]
    assert silent == []
