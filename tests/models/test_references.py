"""BibTeX entries against the docstrings and the page of references."""

import re
from pathlib import Path

import helpers
import pytest
from flax import nnx

import s5jax
from s5jax import S5, ImageRegressor, LanguageModel, Pipeline, Preprocessing, SequenceLabeler

PAGE = " ".join((Path(__file__).parents[2] / "docs/references.md").read_text().split())
LAYERS = {row.layer: row for row in helpers.LAYERS.values() if row.layer.__module__ != "helpers"}
"""A row of each layer of the library."""


def entries(model):
    """The fields of each entry, by its key."""
    found = {}
    for entry in filter(None, s5jax.references(model).split("\n\n")):
        key = re.match(r"@(?:misc|book)\{(\w+),\n", entry).group(1)
        found[key] = dict(re.findall(r"^  (\w+) = \{(.*)\},$", entry, re.MULTILINE))
        assert entry.endswith("\n}")
    return found


def labeler(layer=S5):
    options = {"d_input": 1, "d_output": 2, "d_model": 4, "n_layers": 2}
    return SequenceLabeler(layer, **options, layer_options={"d_state": 4}, rngs=nnx.Rngs(0))


@pytest.mark.parametrize("layer", LAYERS, ids=lambda layer: layer.__name__)
def test_every_layer_has_the_papers_of_its_docstring(layer):
    found = entries(LAYERS[layer].make())
    assert found
    cited = re.findall(r"arxiv\.org/abs/([\d.]+\d)", layer.__doc__)
    assert {fields["eprint"] for fields in found.values() if "eprint" in fields} == set(cited)
    for fields in found.values():
        assert fields["title"].strip("{}") in " ".join(layer.__doc__.split())


@pytest.mark.parametrize("layer", LAYERS, ids=lambda layer: layer.__name__)
def test_the_page_of_references_has_the_same_facts(layer):
    for fields in entries(LAYERS[layer].make()).values():
        title, year = fields["title"].strip("{}"), fields["year"]
        (row,) = (row for row in PAGE.split("- ") if title in row)
        assert year in row
        assert fields.get("eprint", "") in row
        for author in fields["author"].replace(r"{\'e}", "é").split(" and "):
            assert author.partition(",")[0] in row


def test_a_model_has_the_papers_of_its_parts_once():
    assert list(entries(labeler())) == ["s5"]
    model = LanguageModel(
        S5,
        d_input=12,
        d_model=8,
        n_layers=2,
        layer_options={"d_state": 4},
        cutoffs=(4,),
        div_val=2,
        rngs=nnx.Rngs(0),
    )
    assert list(entries(model)) == ["s5", "adaptive_softmax"]
    assert list(entries(Pipeline(labeler(), Preprocessing()))) == ["s5"]


def test_a_model_of_images():
    options = {"d_model": 4, "n_layers": 1, "layer_options": {"d_state": 4}}
    model = ImageRegressor(S5, d_input=576, d_output=2, **options, rngs=nnx.Rngs(0))
    assert list(entries(model)) == ["s5", "cru"]


def test_a_subclass_and_a_layer_of_your_own():
    class Own(S5):
        """A variant."""

    assert list(entries(Own(d_model=4, d_state=4, rngs=nnx.Rngs(0)))) == ["s5"]
    assert s5jax.references(helpers.Leaky(d_model=4, rngs=nnx.Rngs(0))) == ""


@pytest.mark.parametrize("model", [S5, "s5", None])
def test_what_is_not_a_module(model):
    with pytest.raises(ValueError, match=r"must be a layer or a model; got .*Build it"):
        s5jax.references(model)
