"""The arguments that blocks, backbones and models share agree wherever they are declared."""

import dataclasses
import inspect
import typing

import pytest
from flax import nnx
from helpers import normal

import s5jax
from s5jax import S5, ResidualBlock, SequenceBackbone
from s5jax.models import BlockOptions, SequenceModel, _arguments

RNGS = nnx.Rngs(0)
SIZES = {"d_input": 2, "d_model": 4, "n_layers": 1, "layer_options": {"d_state": 4}}
MODELS = {
    "SequenceBackbone": {},
    "SequenceClassifier": {"d_output": 2},
    "DocumentMatcher": {"d_output": 2},
    "SequenceLabeler": {"d_output": 2},
    "LanguageModel": {},
    "ImageRegressor": {"d_output": 2, "d_input": 64, "image_shape": (8, 8)},
}
MAKE = {
    name: lambda name=name, options=options, **more: getattr(s5jax, name)(
        S5, rngs=nnx.Rngs(0), **{**SIZES, **options, **more}
    )
    for name, options in MODELS.items()
} | {"ResidualBlock": lambda **options: ResidualBlock(S5(4, 4, rngs=RNGS), rngs=RNGS, **options)}
every = pytest.mark.parametrize("name", MAKE)


def own_arguments(cls):
    parameters = inspect.signature(cls.__init__).parameters.values()
    return {p.name for p in parameters if p.kind is not p.VAR_KEYWORD} - {"self", "layer", "rngs"}


def test_declarations_agree():
    fields = {field.name: field.default for field in dataclasses.fields(BlockOptions)}
    block = typing.get_type_hints(_arguments.BlockArguments)
    assert block.keys() == fields.keys()
    backbone = typing.get_type_hints(_arguments.BackboneArguments)
    assert backbone.keys() == own_arguments(SequenceBackbone) | fields.keys()
    assert own_arguments(ResidualBlock) == {"dtype", "param_dtype"}


@every
def test_every_option_of_a_block_is_accepted(name):
    options = {
        "norm": "layer",
        "prenorm": False,
        "norm_momentum": 0.5,
        "norm_epsilon": 1e-6,
        "activation": "glu",
        "dropout": 0.25,
        "tie_dropout": "residual",
        "layer_dropout": True,
    }
    assert options.keys() == typing.get_type_hints(_arguments.BlockArguments).keys()
    module = MAKE[name](**options)
    backbone = module.backbone if isinstance(module, SequenceModel) else module
    assert backbone.options == BlockOptions(**options)


@every
def test_unknown_arguments_are_refused(name):
    with pytest.raises(TypeError, match=rf"{name}: there is no argument `nrom`.*mean 'norm'"):
        MAKE[name](nrom="layer")


@every
def test_unknown_arguments_of_a_call_are_refused(name):
    module = MAKE[name](norm="layer")
    with pytest.raises(TypeError, match=rf"{name}: there is no argument `length`.*mean 'lengths'"):
        module(normal(0, 3, 2), length=3)


@pytest.mark.parametrize(("short", "name"), [(True, "all"), (False, "none"), ("all", "all")])
def test_short_forms_of_tie_dropout(short, name):
    assert MAKE["ResidualBlock"](tie_dropout=short).options.tie_dropout == name


def test_a_recipe_can_derive_its_options():
    @dataclasses.dataclass(frozen=True, kw_only=True)
    class Derived(BlockOptions):
        depth: int = 1

    assert Derived(depth=3).norm == "batch"
    with pytest.raises(ValueError, match="Derived: `dropout`"):
        Derived(dropout=1.0)
