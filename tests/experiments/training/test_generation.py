"""Samples from finished runs, on the command line and from Python."""

import dataclasses
import re
import sys

import numpy as np
import pytest
from flax import nnx
from helpers import run

import s5jax
from experiments import generate as command
from experiments.cli.ending import run_command
from experiments.config.models import MODELS, GRUOptions
from experiments.data.sources import Files
from experiments.errors import UsageError
from experiments.recipes import get_recipe
from experiments.records import write_json
from experiments.tasks import get_task
from experiments.training.generation import Sampling, _continue, generate
from experiments.training.loop import fit

GREEDY = Sampling(n=12, temperature=0.0)


def untrained(folder, config):
    """What a finished run leaves of its model."""
    model = config.model.build(get_task(config.task)(config.data), rngs=nnx.Rngs(0))
    s5jax.save(model, folder / "model")
    write_json(folder / "config.json", config.to_dict())
    return folder


@pytest.fixture(scope="module")
def chars(tmp_path_factory):
    config = get_recipe("chars", "gru", "smoke")
    model = GRUOptions(**{**vars(config.model), "n_layers": 1, "d_model": 4, "d_state": 4})
    return untrained(tmp_path_factory.mktemp("chars"), dataclasses.replace(config, model=model))


def test_prompts_of_different_lengths_go_on_side_by_side(chars):
    both = generate(chars, ["The ", "ä"], GREEDY)
    assert both.tokens == 24
    assert both.texts[0].startswith("The ")
    assert both.texts[1].startswith("ä")
    alone = [generate(chars, [prompt], GREEDY).texts[0] for prompt in ("The ", "ä")]
    assert both.texts == alone


def test_command_line(chars, monkeypatch, capsys):
    flags = [f"--workdir={chars}", "--prompt=A", "--prompt=B", "--n=5", "--seed=3", "--top_k=4"]
    texts = []
    for more in ([], [], ["--seed=4", "--temperature=3", "--top_p=0.9"]):
        monkeypatch.setattr(sys, "argv", ["generate", *flags, *more])
        command.main()
        out = capsys.readouterr().out
        assert re.search(r"10 new tokens in .* s: [\d,]+ tokens/s.*Compilation took .* s\.", out)
        texts.append(out.rpartition("\n\n")[0])
    assert texts[0].startswith("A")
    assert texts[0] == texts[1] != texts[2]


@pytest.mark.parametrize(
    ("prompts", "sampling", "message"),
    [
        ([], GREEDY, "--prompt=TEXT"),
        (["A", ""], GREEDY, "must not be empty"),
        (["A"], Sampling(n=0), "`n` must be a positive integer"),
        (["A"], Sampling(n=10**14), r"`n` must be below 2\*\*31"),
        (["A"], Sampling(temperature=-1.0), "`temperature` must not be negative"),
        (["A"], Sampling(top_k=257), "`top_k` must be between 1 and the number of tokens 256"),
        (["A"], Sampling(top_p=2.0), "`top_p` must be in"),
    ],
)
def test_bad_requests_are_explained(chars, prompts, sampling, message):
    with pytest.raises(UsageError, match=message):
        generate(chars, prompts, sampling)


def test_runs_without_a_language_model_are_refused(tmp_path, toy, monkeypatch, capsys):
    write_json(tmp_path / "config.json", toy().to_dict())
    monkeypatch.setattr(sys, "argv", ["generate", f"--workdir={tmp_path}", "--prompt=A"])
    with pytest.raises(SystemExit) as leaving:
        run_command(command.main)
    assert leaving.value.code == 2
    assert "needs a run of one of digits_density, wikitext103, chars" in capsys.readouterr().err


def test_unfinished_runs_are_refused(tmp_path):
    write_json(tmp_path / "config.json", get_recipe("chars", "s5", "smoke").to_dict())
    with pytest.raises(UsageError, match="is not finished"):
        generate(tmp_path, ["A"], GREEDY)


@pytest.mark.slow
@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("task", ["chars", "digits_density"])
def test_greedy_output_of_every_model_equals_full_recomputation(task, model, tmp_path):
    config = get_recipe(task, model, "smoke")
    lm = s5jax.load(untrained(tmp_path, config) / "model")
    prompts = {"chars": ["The ", "a"], "digits_density": ["", "0 5 9"]}[task]
    rows = [get_task(task)(config.data).encode(prompt) for prompt in prompts]
    new, _, _ = _continue(lm, rows, 0, dataclasses.replace(GREEDY, n=20))
    for row, tokens in zip(rows, new, strict=True):
        likeliest = run(lm, np.concatenate([row, tokens])[None])[0].argmax(-1)
        assert (likeliest[len(row) - 1 : -1] == tokens).all()


@pytest.mark.slow
def test_trained_model_completes_images(one_device, tmp_path):
    fit(get_recipe("digits_density", "s5", "smoke"), tmp_path, mesh=one_device)
    samples = generate(tmp_path, ["", "0 0 5 13 9"], Sampling())
    assert samples.tokens == 2 * 64
    assert all(len(text) == 8 * 16 + 7 for text in samples.texts)


@pytest.mark.slow
def test_words_from_files_to_text(one_device, tmp_path):
    """The stack of the paper, small: S4, S4, feed-forward; an adaptive embedding; dropout."""
    folder = tmp_path / "wikitext-103"
    folder.mkdir()
    words = " ".join(f"w{i % 19}" for i in range(60))
    for name, lines in [("train", 99), ("valid", 9), ("test", 9)]:
        (folder / f"wiki.{name}.tokens").write_text(lines * f" {words} \n")
    config = get_recipe("wikitext103", "s4", "smoke")
    model = dataclasses.replace(
        config.model, cutoffs=(6,), dropout=0.1, embedding_dropout=0.1, tie_dropout="none"
    )
    data = dataclasses.replace(config.data, vocabulary=20)
    files = Files(data_dir=tmp_path)
    results = fit(
        dataclasses.replace(config, model=model, data=data),
        tmp_path / "run",
        mesh=one_device,
        files=files,
    )
    assert 1 < results["test"]["perplexity"] < 60
    samples = generate(tmp_path / "run", ["w0 w1", "<eos> w0 w1"], Sampling(n=9), files=files)
    assert samples.texts[0].startswith("w0 w1 ")
    assert samples.texts[1].startswith("\n w0 w1 ")
    assert len(samples.texts[0].replace("\n", "<eos>").split()) == 11
