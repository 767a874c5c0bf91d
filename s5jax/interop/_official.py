"""Whole models from checkpoints of the official implementations."""

import re
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal, TypedDict, Unpack, get_args

import jax.numpy as jnp
from jax.typing import DTypeLike

from s5jax._errors import check_choice
from s5jax._promotion import default_promotion
from s5jax.interop._official_s5 import read_flax_file, s5_model
from s5jax.interop._official_torch import torch_model
from s5jax.interop._torch_file import read_torch_file
from s5jax.models import SequenceModel
from s5jax.models._arguments import Activation, Encoder, TieDropout, check_names
from s5jax.models._classifier import Pooling

Architecture = Literal["s4", "s4d", "s5", "dlr", "sgconv", "hope"]

SIGNS = {
    "sashimi": r"(^|\.)[du]_layers\.\d",
    "s5": r"(^|[./])Lambda_re$",
    "hope": r"\.kernel\.(Han|H)$",
    "sgconv": r"\.(kernel_list|ws)\.\d+$",
    "dlr": r"\.kernel\.(kernel\.)?(W|Lambda|Lambda_log_neg_re)$",
    "s4": r"\.kernel\.(kernel\.)?(P|p)$",
    "s4d": r"\.kernel\.(kernel\.)?((inv_|log_)?A_real|C)$",
    "mamba": r"\.A_log$",
    "transformer": r"(in_proj_weight|[qkv]_proj\.weight|self_attn\..*)$",
    "rnn": r"weight_[ih]h_l\d+",
}
"""Names of arrays by which an architecture is known, the more special ones first."""


class OfficialArguments(TypedDict, total=False):
    """Options of blocks and models that arrays do not always show."""

    prenorm: bool
    activation: Activation
    encoder: Encoder
    pooling: Pooling
    mask_padding: bool
    norm_momentum: float
    norm_epsilon: float
    dropout: float
    tie_dropout: TieDropout | bool
    layer_dropout: bool
    embedding_dropout: float


@default_promotion
def load_official(
    architecture: Architecture,
    path: str | Path,
    *,
    per_step: bool = False,
    layer_options: Mapping[str, Any] | None = None,
    dtype: DTypeLike = jnp.float32,
    **options: Unpack[OfficialArguments],
) -> SequenceModel:
    """Builds a whole model from a checkpoint of an official implementation.

    Nothing in a file is executed: of a ``.ckpt`` or ``.pt`` file only tensors, numbers and strings
    are read, without torch. Names and shapes of the arrays decide sizes, norms, directions, the
    encoder and the head. What they do not show is taken, in this order, from the arguments, from
    the configuration that Lightning stores in the file, and from the official defaults.

    ===========  =======================================  ==========================================
    name         official code                            files
    ===========  =======================================  ==========================================
    ``s4``       state-spaces/s4, versions 3 and 4        Lightning's ``.ckpt``, or a state dict
    ``s4d``      the same; ``example.py``                 the same
    ``dlr``      ag1988/dlr, DLR and DSS                  the same
    ``sgconv``   ctlllll/SGConv in state-spaces/s4        the same
    ``hope``     AnnanYu/HOPE-SSM; ``run_cifar.py``       the same
    ``s5``       lindermanlab/S5                          msgpack of Flax, with ``params``
    ===========  =======================================  ==========================================

    Args:
        architecture: one of these names.
        path: the file.
        per_step: build a `s5jax.SequenceLabeler`, with an output for each step, where the head
            would fit a `s5jax.SequenceClassifier` as well.
        layer_options: options of the function that builds a layer, such as `s4_from_official`.
            Where they decide, step sizes of S4, S4D and HOPE are a ``"softplus"``, as the official
            configurations set it, and an ``"exp"`` in version 3 and minimal layers.
        dtype: dtype of the parameters and computations.
        **options: options of the model, as in `s5jax.ResidualBlock`, `s5jax.SequenceBackbone` and
            `s5jax.SequenceClassifier`. ``prenorm``, ``activation``, ``encoder`` and
            ``norm_epsilon`` default to what the file shows; for S5 to prenorm, ``"half_glu1"`` if
            the block has one map, ``"linear"``, and Flax's epsilons. ``mask_padding`` is False for
            a bidirectional S5. ``pooling`` is ``"mean"``.

    Returns:
        A `s5jax.SequenceClassifier`, `s5jax.SequenceLabeler`, `s5jax.DocumentMatcher` or
        `s5jax.LanguageModel`, in evaluation mode. S5's official models return log-probabilities,
        these return logits.

    Raises:
        FileNotFoundError: if there is no such file.
        TypeError: for an argument that does not exist.
        ValueError: for a file that cannot be read, an unknown or another architecture, names and
            shapes that do not fit (all are listed), or an option that the library does not have.

    Example:
        >>> import pathlib, tempfile
        >>> import numpy as np
        >>> from flax import serialization
        >>> from s5jax.interop import load_official
        >>> dense = {"kernel": np.ones((2, 2)), "bias": np.zeros(2)}
        >>> seq = {name: np.full(3, -1.0) for name in ("Lambda_re", "Lambda_im")}
        >>> seq |= {"B": np.ones((3, 2, 2)), "C": np.ones((2, 3, 2)), "D": np.ones(2)}
        >>> norm = {"scale": np.ones(2), "bias": np.zeros(2)}
        >>> layer = {"seq": seq | {"log_step": np.zeros((3, 1))}, "norm": norm, "out2": dense}
        >>> params = {"encoder": {"encoder": dense, "layers_0": layer}, "decoder": dense}
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = pathlib.Path(folder) / "s5.msgpack"
        ...     _ = path.write_bytes(serialization.msgpack_serialize({"params": params}))
        ...     model = load_official("s5", path)
        >>> model(np.ones((5, 2), "float32")).shape
        (2,)

    References:
        https://github.com/state-spaces/s4, ``src/models/sequence/backbones``;
        https://github.com/lindermanlab/S5, ``s5/seq_model.py``.
    """
    where = "load_official"
    check_choice(where, "architecture", architecture, get_args(Architecture))
    check_names(where, options, OfficialArguments)
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(
            f"{where}: {path} is not a file; `path` must be a checkpoint of an official model."
        )
    arguments: dict[str, Any] = {"per_step": per_step, "dtype": dtype}
    arguments |= {"layer_options": layer_options or {}, "options": options}
    where_file = f"{where}: {path}"
    if architecture == "s5" and not zipfile.is_zipfile(path):
        arrays = read_flax_file(where, path)
        check_architecture(where_file, architecture, arrays)
        return s5_model(where_file, arrays, **arguments)
    file = read_torch_file(where, path)
    check_architecture(where_file, architecture, file.arrays)
    if architecture == "s5":
        raise ValueError(
            f"{where_file}: a model of 's5' must be in a msgpack file of Flax, as its official "
            "code is in JAX; this is a file of PyTorch."
        )
    return torch_model(where_file, architecture, file, **arguments)


def check_architecture(where: str, architecture: Architecture, names: Iterable[str]) -> None:
    """Raises a ValueError if the names are those of another architecture, or of none."""
    names = list(names)
    found = [a for a, sign in SIGNS.items() if any(re.search(sign, name) for name in names)]
    if found[:1] == [architecture]:
        return
    looks = f"looks like {found[0]!r}" if found else f"has arrays such as {sorted(names)[:3]}"
    known = found[:1] and found[0] in get_args(Architecture)
    advice = f"Pass {found[0]!r}." if known else "Models of this kind cannot be built."
    raise ValueError(
        f"{where}: the file must hold a model of {architecture!r}; it {looks}. {advice}"
    )
