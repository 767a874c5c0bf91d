"""Trained models that come with the library, or from the Hugging Face Hub."""

import hashlib
import importlib
import json
import re
from pathlib import Path
from typing import Any

from s5jax._errors import check_choice
from s5jax.models._saving import load

FOLDER = Path(__file__).parents[1] / "pretrained"
HUB = "hf://"
_FILES = ("model.json", "parameters.safetensors", "preprocessing.json")


def list_pretrained() -> dict[str, dict[str, Any]]:
    """Lists the trained models that come with the library.

    Returns:
        For each name that `load_pretrained` accepts: task, layer, metric, its value on the test
        split, the data and their terms. The folder ``folder`` is a finished run without its
        checkpoints, for commands such as ``experiments.evaluate``. Its ``card.md`` also has the
        seed, the commit and the command that trained it.

    Example:
        >>> from s5jax import list_pretrained
        >>> list_pretrained()["digits-s5"]["metric"]
        'accuracy'
    """
    return {
        name: {**{key: fact for key, fact in entry.items() if key != "files"}, "folder": folder}
        for name, entry in _read_index().items()
        for folder in [FOLDER / name]
    }


def load_pretrained(name: str) -> Any:
    """Loads a trained model by its name, in evaluation mode.

    Args:
        name: a name in `list_pretrained`, or ``"hf://OWNER/NAME"`` for a repository on the Hugging
            Face Hub, which holds the files that `save` writes, or the folder ``model`` with them.

    Returns:
        The model or `Pipeline`, as `load` does.

    Raises:
        ValueError: if there is no such model, a file differs from its published checksum, or the
            Hub does not deliver it.
        ImportError: for ``"hf://"`` without the package huggingface_hub.

    Example:
        >>> from s5jax import load_pretrained
        >>> pipeline = load_pretrained("digits-s5")
        >>> print(*pipeline.preprocessing.classes)
        0 1 2 3 4 5 6 7 8 9
    """
    return load(find_pretrained(name))


def find_pretrained(name: str) -> Path:
    """Returns the folder of a trained model, with the files that `save` writes.

    Args:
        name: as for `load_pretrained`; a model on the Hub is downloaded.

    Raises:
        ValueError: if there is no such model, a file differs from its published checksum, or the
            Hub does not deliver it.
        ImportError: for ``"hf://"`` without the package huggingface_hub.

    Example:
        >>> from s5jax import find_pretrained
        >>> sorted(path.name for path in find_pretrained("digits-s5").iterdir())
        ['model.json', 'parameters.safetensors', 'preprocessing.json']
    """
    if isinstance(name, str) and name.startswith(HUB):
        return _download(name)
    index = _read_index()
    check_choice("load_pretrained", "name", name, index)
    for file, published in index[name]["files"].items():
        path = FOLDER / name / file
        found = hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "missing"
        if found != published:
            raise ValueError(
                f"load_pretrained: {path} must be the published file, whose sha256 is {published}; "
                f"it is {found}. Install s5jax again."
            )
    return FOLDER / name / "model"


def _read_index() -> dict[str, dict[str, Any]]:
    return json.loads((FOLDER / "index.json").read_text(encoding="utf-8"))


def _download(name: str) -> Path:
    """The folder with the files of a repository on the Hub."""
    repository = name.removeprefix(HUB)
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", repository):
        raise ValueError(f"load_pretrained: `name` must be hf://OWNER/NAME; got {name!r}.")
    try:
        hub = importlib.import_module("huggingface_hub")
    except ImportError as error:
        raise ImportError(
            f"load_pretrained: {name} needs the package huggingface_hub; its import failed with: "
            f"{error}. Run pip install huggingface_hub."
        ) from error
    wanted = [*_FILES, *(f"model/{file}" for file in _FILES)]
    try:
        folder = Path(hub.snapshot_download(repository, allow_patterns=wanted))
    except Exception as error:  # of the network, or of the Hub
        reason = " ".join(str(error).split())[:300].rstrip(".") or type(error).__name__
        raise ValueError(f"load_pretrained: {name} cannot be downloaded: {reason}.") from error
    return folder / "model" if (folder / "model").is_dir() else folder
