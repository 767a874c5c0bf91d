import dataclasses
import json

import pytest

from experiments.config import Config, OptimOptions, TrainOptions, differences, read_config
from experiments.config.models import S5Options
from experiments.errors import UsageError
from experiments.recipes import RECIPES, describe_changes, get_recipe


def test_json_round_trip_of_every_recipe():
    for recipe in RECIPES.values():
        assert Config.from_dict(json.loads(recipe.config.to_json())) == recipe.config


def test_json_round_trip_of_an_option_that_may_be_missing():
    config = get_recipe("pathx", "s4", "smoke")
    for n_ssm in (None, 2):
        changed = dataclasses.replace(config, model=dataclasses.replace(config.model, n_ssm=n_ssm))
        assert Config.from_dict(json.loads(changed.to_json())) == changed


@pytest.mark.parametrize(
    ("edit", "words"),
    [
        (lambda c: c["optim"].update(lrr=1), ["optim.lrr", "'lr'"]),
        (lambda c: c.update(sed=1), ["config.sed", "'seed'"]),
        (lambda c: c["optim"].update(lr="fast"), ["optim.lr", "float", "'fast'"]),
        (lambda c: c["train"].update(steps=1.5), ["train.steps", "int", "1.5"]),
        (lambda c: c["train"].update(steps=True), ["train.steps", "int", "True"]),
        (lambda c: c["model"].update(prenorm=1), ["model.prenorm", "bool", "1"]),
        (lambda c: c["optim"].update(schedule="cosin"), ["optim.schedule", "'cosine'"]),
        (lambda c: c["data"].update(margins=[1, "2"]), ["data.margins", "int", "'2'"]),
        (lambda c: c["optim"].pop("lr"), ["Missing", "optim", "lr"]),
        (lambda c: c.pop("train"), ["train", "object"]),
        (lambda c: c.update(task="pathz"), ["pathz", "pathx"]),
        (lambda c: c["model"].update(name="s6"), ["s6", "s5"]),
        (lambda c: c["model"].update(ffn_every="2"), ["model.ffn_every", "int", "'2'"]),
        (lambda c: c["optim"].update(lr=-1), ["lr", "positive", "-1"]),
    ],
)
def test_json_is_read_strictly(edit, words):
    values = get_recipe("pathx", "s5", "smoke").to_dict()
    edit(values)
    with pytest.raises(UsageError) as error:
        Config.from_dict(json.loads(json.dumps(values)))
    assert all(word in str(error.value) for word in words)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "Expecting value: line 1"),
        ("{", "Expecting property name"),
        ("[]", "must be an object with a section `model`"),
        ("3", "must be an object with a section `model`"),
        ("null", "must be an object with a section `model`"),
        ('{"model": 3}', "must be an object with a section `model`"),
        ('{"model": {}}', "Unknown task 'None': choose from listops"),
    ],
)
def test_what_is_no_configuration_is_refused(text, reason, tmp_path):
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(UsageError, match=rf"config\.json.*{reason}"):
        read_config(tmp_path)


def test_a_folder_without_a_run_is_refused(tmp_path):
    with pytest.raises(UsageError, match=r"config\.json"):
        read_config(tmp_path)


@pytest.mark.parametrize(
    ("options", "field"),
    [
        (lambda: OptimOptions(lr=0.0), "lr"),
        (lambda: OptimOptions(lr=float("nan")), "lr"),
        (lambda: OptimOptions(weight_decay=-1.0), "weight_decay"),
        (lambda: OptimOptions(warmup_steps=-1), "warmup_steps"),
        (lambda: TrainOptions(steps=0), "steps"),
        (lambda: TrainOptions(batch_size=-8), "batch_size"),
        (lambda: S5Options(d_model=0), "d_model"),
        (lambda: S5Options(dropout=1.0), "dropout"),
    ],
)
def test_impossible_values_are_refused(options, field):
    with pytest.raises(ValueError, match=f"`{field}`"):
        options()


@pytest.mark.parametrize(
    ("section", "changes", "field"),
    [
        ("train", {"steps": 2}, "warmup_steps"),
        ("train", {"batch_size": 65}, "batch_size"),
        ("data", {"n_test": 0}, "n_test"),
    ],
)
def test_sections_must_fit_together(toy, section, changes, field):
    with pytest.raises(ValueError, match=field):
        toy(**{section: changes})


def test_seed_must_be_small_enough(toy):
    with pytest.raises(ValueError, match="seed"):
        dataclasses.replace(toy(), seed=2**31)


def test_differences_name_the_fields(toy):
    a, b = toy(), toy(optim={"lr": 0.5})
    assert differences(a, b) == {"optim.lr": (1e-2, 0.5)}
    assert differences(a, a) == {}


def test_changes_against_the_paper_come_after_its_source():
    source, changes = describe_changes(get_recipe("pathx", "s5", "cpu")).splitlines()
    assert "Smith et al. 2023" in source
    assert "published: 0.9858" in source
    assert "data.size 128 -> 32" in changes
    assert describe_changes(get_recipe("pathx", "s5", "paper")).endswith("nothing.")


def test_paper_recipe_of_pathx_is_the_published_one():
    config = get_recipe("pathx", "s5", "paper")
    assert config.steps_per_epoch == 5_000
    assert config.train.steps == 75 * 5_000
    assert (config.model.d_state, config.model.n_blocks, config.model.dt_min) == (256, 16, 1e-4)
    assert (config.optim.lr, config.optim.ssm_lr, config.optim.weight_decay) == (18e-4, 6e-4, 0.06)
    assert config.optim.opt_config == "BandCdecay"


@pytest.mark.parametrize(
    "key", [("path", "s5", "cpu"), ("pathx", "s4d", "gpu"), ("pathx", "s5", "gpu")]
)
def test_unknown_names_list_the_valid_ones(key):
    with pytest.raises(UsageError, match="choose from"):
        get_recipe(*key)
