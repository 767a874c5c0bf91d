"""The command ``s5jax``, and access to ``experiments`` where the wheel is installed.

The wheel stores the folder ``experiments`` inside this package, so that its name cannot collide
with another package in the same environment. Importing this package makes it importable:

    import s5jax_experiments
    from experiments.training import fit

In a checkout, ``experiments`` is beside this package and importable without it.
"""

import difflib
import importlib.metadata
import os
import re
import sys
from pathlib import Path

COMMANDS = {
    "train": "trains a model on a task, or resumes an interrupted run",
    "evaluate": "evaluates the model of a finished run",
    "predict": "writes the predictions of a trained model for your own file",
    "stream": "lets a trained model listen to a sound as it arrives",
    "generate": "continues prompts with a trained language model",
    "export": "writes a trained model as StableHLO, ONNX or a web page",
    "plan": "estimates parameters, memory and time of a run",
    "results": "prints the table of finished runs",
    "claims": "prints the claims of the papers, and what shows them",
    "recipes": "lists the recipe of each task, model and preset",
    "data": "writes examples of a task, or prepares a data set",
    "bench": "measures speed and memory",
}
PACKAGES = ("data", "recipes", "bench")
"""Commands that are a package with a ``__main__``."""
FOLDER = str(Path(__file__).parent)
INSTALLED = (Path(FOLDER) / "experiments").is_dir()

if INSTALLED:
    sys.path.insert(0, FOLDER)


def main() -> None:
    """Runs the command that the command line names, and imports no other."""
    name = sys.argv[1] if len(sys.argv) > 1 else "--help"
    if name in ("-h", "--help"):
        print(_usage())
        return
    if name not in COMMANDS:
        near = difflib.get_close_matches(name, COMMANDS, n=1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        _leave(f"Unknown command {name!r}: choose from {', '.join(COMMANDS)}.{hint}")
    if missing := missing_packages():
        listed = ", ".join(missing[:3]) + (f" and {len(missing) - 3} more" * (len(missing) > 3))
        _leave(
            f"s5jax {name} needs packages that are not installed ({listed}): install them with: "
            "pip install 's5jax[train]'"
        )
    del sys.argv[1]
    sys.path.append("")  # a user's own modules in the current folder
    if INSTALLED:  # for the processes that a command starts
        paths = [FOLDER, *filter(None, [os.environ.get("PYTHONPATH")])]
        os.environ["PYTHONPATH"] = os.pathsep.join(paths)
    ending = importlib.import_module("experiments.cli.ending")
    module = f"experiments.{name}" + (".__main__" if name in PACKAGES else "")
    ending.run_command(importlib.import_module(module).main)


def missing_packages() -> list[str]:
    """Returns the packages of the extra ``train`` that are not installed."""
    lines = importlib.metadata.requires("s5jax") or []
    names = [re.split(r"[^\w.-]", line)[0] for line in lines if re.search("extra == .train", line)]
    return [name for name in names if not _is_installed(name)]


def _is_installed(name: str) -> bool:
    try:
        importlib.metadata.distribution(name)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def _usage() -> str:
    rows = "\n".join(f"  {name:<10} {text}" for name, text in COMMANDS.items())
    return (
        f"usage: s5jax COMMAND ...\n\nCommands:\n{rows}\n\n"
        "s5jax COMMAND --help lists the options of a command.\n"
        "Example: s5jax train --task=pathx --preset=smoke"
    )


def _leave(sentence: str) -> None:
    print(sentence, file=sys.stderr)
    raise SystemExit(2)
