"""Finished runs as pretrained models: the run without its checkpoints, a card, and an index."""

import hashlib
import shlex
import shutil
from pathlib import Path
from typing import Any, NamedTuple

import jax
from flax import nnx

from experiments.config import Config, differences
from experiments.errors import UsageError
from experiments.files import replacing
from experiments.recipes import get_recipe, recipe_of
from experiments.records import Results, read_json, write_json
from experiments.training.finished import load_run


class Data(NamedTuple):
    """What a model was trained on."""

    name: str
    terms: str
    """Licence of the data, as their authors or distributors state it."""


SYNTHETIC = Data("synthetic examples, drawn by this program", "none: the data are not distributed")
DIGITS = Data(
    "Optical Recognition of Handwritten Digits (Alpaydin and Kaynak), UCI, as in scikit-learn",
    "CC BY 4.0",
)
MNIST = Data(
    "MNIST (LeCun, Cortes and Burges)",
    "no licence from the authors is known; usually given as CC BY-SA 3.0",
)
CIFAR10 = Data("CIFAR-10 (Krizhevsky, 2009)", "no licence stated")
IMDB = Data("Large Movie Review Dataset (Maas et al., 2011)", "no licence stated")
SPEECH = Data("Speech Commands v0.02 (Warden, 2018)", "CC BY 4.0")
WIKITEXT = Data("WikiText-103 (Merity et al., 2016)", "CC BY-SA 3.0")
SYNTHETIC_TASKS = (
    *("shift", "context_shift", "cumsum", "cummax", "reverse", "sort", "masked_select"),
    *("masked_select_fixed", "solve", "solve_fixed", "mips", "associative_recall"),
    *("listops", "listops_subtrees", "pathfinder", "pathx", "path256", "pendulum"),
    *(f"pathfinder_segmentation_{size}" for size in (128, 256, 512)),
)
DATA: dict[str, Data] = {
    **dict.fromkeys(("digits", "digits_density", "noisy_digits"), DIGITS),
    **dict.fromkeys(("smnist", "psmnist"), MNIST),
    **dict.fromkeys(("image", "scifar", "noisy_scifar"), CIFAR10),
    **dict.fromkeys(("sc35", "sc10"), SPEECH),
    **dict.fromkeys(SYNTHETIC_TASKS, SYNTHETIC),
    "text": IMDB,
    "wikitext103": WIKITEXT,
}
"""Data of the tasks whose models may be published."""


def publish_run(workdir: Path, out: Path) -> Path:
    """Writes a finished run as a pretrained model, and its entry in the index beside it.

    Args:
        workdir: the run's folder.
        out: the folder to write; its name is the name of the model.

    Returns:
        The folder: ``config.json``, ``results.json``, ``model`` and ``card.md``.

    Raises:
        UsageError: if there is no finished run, or the terms of its data are not recorded here.
    """
    config, results, trained = load_run(workdir)
    if config.task not in DATA:
        raise UsageError(
            f"The terms of the data of {config.task} must be known before a model is published: "
            f"add them to DATA in {Path(__file__).name}, which has {', '.join(DATA)}."
        )
    sources = [workdir / "config.json", workdir / "results.json"]
    sources += sorted(path for path in (workdir / "model").iterdir() if path.is_file())
    (out / "model").mkdir(parents=True, exist_ok=True)
    for source in sources:
        shutil.copyfile(source, out / source.relative_to(workdir))
    with replacing(out / "card.md") as file:
        file.write(make_card(out.name, config, results, trained.model))
    files = [*(path.relative_to(workdir) for path in sources), Path("card.md")]
    data = DATA[config.task]
    entry = {
        "task": config.task,
        "model": config.model.name,
        "metric": results["metric"],
        "test": results["test"][results["metric"]],
        "data": data.name,
        "terms": data.terms,
        "files": {
            path.as_posix(): hashlib.sha256((out / path).read_bytes()).hexdigest()
            for path in sorted(files)
        },
    }
    index = out.parent / "index.json"
    entries = read_json(index) if index.is_file() else {}
    write_json(index, dict(sorted({**entries, out.name: entry}.items())))
    return out


def make_card(name: str, config: Config, results: Results, model: nnx.Module) -> str:
    """Describes a trained model: task, figures, data, and how to train it again."""
    metric = results["metric"]
    n = sum(leaf.size for leaf in jax.tree.leaves(nnx.state(model, nnx.Param)))
    splits = (config.data.n_train, config.data.n_validation, config.data.n_test)
    packages = ", ".join(f"{package} {version}" for package, version in results["versions"].items())
    rows = {
        "model": f"{config.model.name}, n_layers {config.model.n_layers}, d_model "
        f"{config.model.d_model}; {n:,} parameters",
        "task": config.task,
        f"{metric}, test": f"{results['test'][metric]:.4f}",
        f"{metric}, validation": f"{results['validation'][metric]:.4f}",
        "steps": f"{results['steps']:,}; best on the validation split: {results['best_step']:,}",
        "seeds": f"one, {config.seed}",
        "data": DATA[config.task].name,
        "examples": "train {:,}, validation {:,}, test {:,}".format(*splits),
        "terms of the data": DATA[config.task].terms,
        "terms of the parameters": "Apache-2.0, as s5jax, where the terms of the data allow it",
        "trained on": f"{results['device']}, {results['wall_s']:,.0f} s",
        "commit": results["commit"],
        "packages": packages,
    }
    table = "\n".join(f"| {fact} | {value} |" for fact, value in rows.items())
    return (
        f"# {name}\n\n| fact | value |\n|---|---|\n{table}\n\n"
        f"Trained by\n\n    {train_command(config)}\n\n"
        f"and loaded by `s5jax.load_pretrained({name!r})`.\n"
    )


def train_command(config: Config) -> str:
    """Returns the command that trains a configuration: its recipe and what differs from it."""
    row = recipe_of(config)
    recipe = row.config if row else get_recipe(config.task, config.model.name, config.preset)
    chosen = {"task": config.task, "model": config.model.name, "preset": config.preset}
    changed = {name: new for name, (_, new) in differences(recipe, config).items()}
    changed.pop("init_sha256", None)  # follows from the model
    flags = {**chosen, "seed": config.seed, **changed}
    words = ["python", "-m", "experiments.train"]
    for name, value in flags.items():
        words += _flag(name, value)
    return shlex.join(words)


def _flag(name: str, value: Any) -> list[str]:
    if isinstance(value, tuple | list):
        return [f"--{name}", *map(str, value)]
    return [f"--{name}={value}"]
