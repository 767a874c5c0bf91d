"""Initial parameters from a saved model, for ``--init-from``."""

import dataclasses
import hashlib
from pathlib import Path
from typing import Any

from flax import nnx

import s5jax
from experiments.config import Config
from experiments.devices.distributed import log_primary
from experiments.errors import UsageError, blaming_options
from experiments.files import user_path

FILES = ("model.json", "parameters.safetensors")
BLOCKS = "backbone.blocks."
HUB = "hf://"


def find_model(source: str) -> Path:
    """Returns the folder of a pretrained model, of a finished run's model, or of a saved model.

    A model on the Hugging Face Hub is downloaded.

    Raises:
        UsageError: if the source is none of these, or cannot be downloaded.
    """
    known = s5jax.list_pretrained()
    if source in known or source.startswith(HUB):
        with blaming_options():
            try:
                folder = s5jax.find_pretrained(source)
            except ImportError as error:
                raise UsageError(str(error)) from error
    else:
        folder = user_path(source)
    for path in (folder / "model", folder):
        if all((path / name).is_file() for name in FILES):
            return path
    raise UsageError(
        f"--init-from must be the folder of a finished run or of a saved model, {HUB}OWNER/NAME "
        f"with such a model, or one of {', '.join(known)}; got {source}."
    )


def with_checksum(config: Config) -> Config:
    """Adds the checksum of the model in ``init_from``, which a resumed run compares.

    Raises:
        UsageError: if there is no such model.
    """
    if config.init_from is None:
        return config
    folder, digest = find_model(config.init_from), hashlib.sha256()
    for name in FILES:
        digest.update((folder / name).read_bytes())
    return dataclasses.replace(config, init_sha256=digest.hexdigest())


def initialize(model: nnx.Module, source: str) -> None:
    """Copies the parameters and running statistics that a saved model shares with a new one.

    Those of equal path and shape are shared. The blocks that both models have must agree in all of
    them; an encoder or a head of another shape stays as it is. One line reports the result.

    Raises:
        UsageError: if the models have no block in common, or blocks that differ.
    """
    with blaming_options():
        saved = s5jax.load(find_model(source))
    saved = saved.model if isinstance(saved, s5jax.Pipeline) else saved
    root = "backbone." if isinstance(saved, s5jax.SequenceBackbone) else ""
    state = nnx.state(model)
    ours = _variables(state)
    theirs = {root + path: variable for path, variable in _variables(nnx.state(saved)).items()}
    _check_blocks(ours, theirs, source)
    taken = [path for path in ours if _shape(path, ours) == _shape(path, theirs)]
    for path in taken:
        ours[path].set_value(theirs[path][...])
    nnx.update(model, state)
    new, unused = sorted(ours.keys() - taken), sorted(theirs.keys() - taken)
    log_primary(
        f"Initial values from {source}: {len(taken)} of {len(ours)} arrays, "
        f"{sum(ours[path].size for path in taken):,} numbers; new: {', '.join(new) or 'none'}; "
        f"not used: {', '.join(unused) or 'none'}."
    )


def _check_blocks(ours: dict[str, Any], theirs: dict[str, Any], source: str) -> None:
    common = {_block(path) for path in ours} & {_block(path) for path in theirs} - {None}
    if not common:
        raise UsageError(
            f"--init-from={source} has no parameters under {BLOCKS}0, so there is nothing to "
            f"take: name a model with blocks; it has {', '.join(sorted(theirs)[:5])}."
        )
    differing = [
        f"{path} has {_shape(path, theirs) or 'no values'} there and "
        f"{_shape(path, ours) or 'no values'} here"
        for path in sorted(ours | theirs)
        if _block(path) in common and _shape(path, ours) != _shape(path, theirs)
    ]
    if differing:
        more = f", and {len(differing) - 3} more differ" if len(differing) > 3 else ""
        raise UsageError(
            f"--init-from={source} must have blocks with the same parameters as the new model; "
            f"{'; '.join(differing[:3])}{more}. Set --model and its options, such as "
            "--model.d_model, as in the model.json of the saved model."
        )


def _variables(state: nnx.State) -> dict[str, Any]:
    return {".".join(map(str, path)): variable for path, variable in nnx.to_flat_state(state)}


def _block(path: str) -> str | None:
    """The number of the block that a parameter belongs to."""
    return path.removeprefix(BLOCKS).partition(".")[0] if path.startswith(BLOCKS) else None


def _shape(path: str, variables: dict[str, Any]) -> str | None:
    return f"shape {variables[path].shape}" if path in variables else None
