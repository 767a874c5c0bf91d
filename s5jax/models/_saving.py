"""Layers and models on disk: constructor arguments as JSON, arrays as safetensors."""

import contextlib
import dataclasses
import inspect
import itertools
import json
import reprlib
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from safetensors.numpy import load_file, save_file

from s5jax._errors import check_choice
from s5jax.layers import (
    DLR,
    GRU,
    HOPE,
    LRU,
    S4,
    S4D,
    S5,
    Attention,
    DenseSSM,
    Hyena,
    LinOSS,
    SequenceLayer,
    SGConv,
)
from s5jax.models._backbone import SequenceBackbone
from s5jax.models._classifier import DocumentMatcher, SequenceClassifier
from s5jax.models._earlier import upgrade
from s5jax.models._image_regressor import ImageRegressor
from s5jax.models._language import LanguageModel
from s5jax.models._model import SequenceLabeler, SequenceModel
from s5jax.models._pipeline import Pipeline, Preprocessing

Classes = Mapping[str, type[nnx.Module]]

LAYERS = (Attention, DLR, DenseSSM, GRU, HOPE, Hyena, LRU, LinOSS, S4, S4D, S5, SGConv)
MODELS = (
    DocumentMatcher,
    ImageRegressor,
    LanguageModel,
    SequenceBackbone,
    SequenceClassifier,
    SequenceLabeler,
)
CLASSES: Classes = {cls.__name__: cls for cls in (*LAYERS, *MODELS)}
"""What a file can name; only a caller can add to it."""

_CONFIG, _ARRAYS = "model.json", "parameters.safetensors"
_PREPROCESSING = "preprocessing.json"
_MAX_CONFIG = 2**20
_MAX_PREPROCESSING = 2**26
_MODES = ("deterministic", "use_running_average")


def save(model: nnx.Module, folder: str | Path) -> None:
    """Writes a layer or model to a folder.

    ``model.json`` holds its class and constructor arguments, ``parameters.safetensors`` its
    parameters and running statistics; a `Pipeline` adds ``preprocessing.json``. None of them can
    execute anything when read.

    A layer of your own is saved by the name of its class. It must keep each argument of its
    constructor, besides ``rngs``, as an attribute of the same name.

    Args:
        model: a layer, a model such as `SequenceClassifier`, or a `Pipeline` of one.
        folder: made if it does not exist; files of an earlier `save` are replaced.

    Raises:
        ValueError: if the class is not one that `load` can build, or if the model is not what its
            constructor arguments build, as after a head was replaced.

    Example:
        >>> import tempfile
        >>> from flax import nnx
        >>> from s5jax import S5, load, save
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     save(S5(d_model=4, d_state=8, rngs=nnx.Rngs(0)), folder)
        ...     print(load(folder).d_state)
        8
    """
    preprocessing = None
    if isinstance(model, Pipeline):
        model, preprocessing = model.model, model.preprocessing
    name = type(model).__name__
    if not isinstance(model, SequenceLayer):
        check_choice("save", "model", name, CLASSES)
    config = {
        "s5jax": version("s5jax"),
        "class": name,
        "arguments": {name: _encode(value) for name, value in _arguments(model).items()},
    }
    arrays = {path: np.asarray(v[...]) for path, v in _variables(nnx.state(model)).items()}
    _check_rebuilt(model, config["arguments"], arrays)
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    save_file(arrays, folder / _ARRAYS)
    (folder / _CONFIG).write_text(json.dumps(config, indent=2) + "\n")
    (folder / _PREPROCESSING).unlink(missing_ok=True)
    if preprocessing is not None:
        fields = dataclasses.asdict(preprocessing).items()
        lines = ",\n".join(f"  {json.dumps(name)}: {json.dumps(value)}" for name, value in fields)
        (folder / _PREPROCESSING).write_text(f"{{\n{lines}\n}}\n", encoding="utf-8")


def load(folder: str | Path, *, layers: Iterable[type[SequenceLayer]] = ()) -> Any:
    """Reads what `save` wrote, in evaluation mode.

    Args:
        folder: the folder given to `save`.
        layers: classes of your own that the model may be made of. A file names classes, and only
            those of this library and of this list are ever built.

    Returns:
        The layer or model, or the `Pipeline` with which a training run ends; call ``.train()`` on
        it to train it further.

    Raises:
        FileNotFoundError: if the folder does not hold the two files.
        ValueError: if a file is corrupted, names or shapes do not fit the class, or the class is
            not known.

    Example:
        See `save`.
    """
    folder, classes = Path(folder), _with_own("load", layers)
    for name in (_CONFIG, _ARRAYS):
        if not (folder / name).is_file():
            raise FileNotFoundError(
                f"load: {folder / name} does not exist; `folder` must be one that s5jax.save "
                "wrote, such as the folder `model` of a finished run."
            )
    with _explain_errors(folder / _CONFIG, "is corrupted"):
        config = _read_json(folder / _CONFIG, _MAX_CONFIG)
        name, arguments = config["class"], dict(config["arguments"])
    for named in (name, *_class_names(arguments)):
        _check_class(folder / _CONFIG, named, classes)
    with _explain_errors(folder / _ARRAYS, "is corrupted"):
        arrays = load_file(folder / _ARRAYS)
    with _explain_errors(folder / _CONFIG, "does not describe a model of this version of s5jax"):
        has_backbone = issubclass(classes[name], SequenceModel)
        arguments, arrays = upgrade(arguments, arrays, name, has_backbone=has_backbone)
        model = _build(name, arguments, arrays, classes)
    graphdef, state = nnx.split(model)
    _fill(state, arrays, folder)
    model: Any = nnx.merge(graphdef, state)
    if (folder / _PREPROCESSING).is_file():
        with _explain_errors(folder / _PREPROCESSING, "is corrupted"):
            values: dict[str, Any] = {**_read_json(folder / _PREPROCESSING, _MAX_PREPROCESSING)}
            values |= {name: tuple(v) for name, v in values.items() if isinstance(v, list)}
            model = Pipeline(model, Preprocessing(**values))
    model.eval()
    return model


def _with_own(where: str, layers: Iterable[Any]) -> Classes:
    """The classes of this library and those of a caller.

    Raises:
        ValueError: for anything but classes of layers, and for names that are taken.
    """
    classes = dict(CLASSES)
    for layer in layers:
        if not (inspect.isclass(layer) and issubclass(layer, SequenceLayer)):
            raise ValueError(
                f"{where}: `layers` must be classes derived from SequenceLayer; got "
                f"{reprlib.repr(layer)}."
            )
        if classes.setdefault(layer.__name__, layer) is not layer:
            raise ValueError(
                f"{where}: there are two classes with the name {layer.__name__}; rename the one of "
                f"the module {layer.__module__}."
            )
    return classes


def _check_class(path: Path, name: Any, classes: Classes) -> None:
    """Raises a ValueError unless a class that a file names is known."""
    name = name if isinstance(name, str) else reprlib.repr(name)
    try:
        check_choice(f"load: {path}", "class", name[:100], classes)
    except ValueError as error:
        raise ValueError(
            f"{error} A class of your own is to be passed to load: layers=[{name[:100]}]."
        ) from None


def _class_names(arguments: Any) -> Iterator[Any]:
    """The names of classes among arguments that were read from a file."""
    for value in arguments.values() if isinstance(arguments, dict) else arguments:
        if isinstance(value, dict) and "class" in value:
            yield value["class"]
        elif isinstance(value, list):
            yield from _class_names(value)


def _arguments(model: Any) -> dict[str, Any]:
    """The arguments of the constructor, each of which the object keeps."""
    kept: dict[str, Any] = {}
    if isinstance(model, SequenceModel):
        kept = _arguments(model.backbone)
    elif isinstance(model, SequenceBackbone):
        kept = dataclasses.asdict(model.options)
    own = {}
    for name in _argument_names(type(model)):
        if name not in kept and not hasattr(model, name):
            raise ValueError(
                f"save: {type(model).__name__} must keep the argument `{name}` of its constructor "
                "as an attribute of this name, because `load` passes it again."
            )
        if name not in kept:
            own[name] = getattr(model, name)
    return own | kept


def _argument_names(cls: type) -> list[str]:
    """Names of the constructor's arguments, with those that ``**options`` passes to its base."""
    if cls.__init__ is object.__init__:
        return []
    parameters = inspect.signature(cls.__init__).parameters.values()
    own = [p for p in parameters if p.name not in ("self", "rngs")]
    names = [p.name for p in own if p.kind is not p.VAR_KEYWORD]
    inherited = [] if len(names) == len(own) else _argument_names(cls.__mro__[1])
    return names + [name for name in inherited if name not in names]


def _encode(value: Any) -> Any:
    if inspect.isclass(value) and issubclass(value, nnx.Module):
        if not issubclass(value, SequenceLayer):
            check_choice("save", "layer", value.__name__, CLASSES)
        return {"class": value.__name__}
    if isinstance(value, np.floating):
        value = float(str(value))  # 0.1 of float32 as 0.1: it may be compared with other options
    if isinstance(value, np.generic | np.ndarray | jax.Array):
        value = value.tolist()
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, tuple | list):
        return [_encode(item) for item in value]
    try:
        return {"dtype": jnp.dtype(value).name}
    except TypeError as error:
        raise ValueError(
            "save: arguments of the constructor must be numbers, strings, dtypes, classes of "
            f"layers, or sequences of these; got {reprlib.repr(value)}."
        ) from error


def _decode(value: Any, classes: Classes) -> Any:
    if isinstance(value, list):
        return [_decode(item, classes) for item in value]
    if isinstance(value, dict) and "class" in value:
        return classes[value["class"]]
    return jnp.dtype(value["dtype"]) if isinstance(value, dict) else value


@contextlib.contextmanager
def _explain_errors(path: Path, fault: str) -> Generator[None]:
    """Turns any error that a file causes into one sentence that names the file."""
    try:
        yield
    except Exception as error:
        cause = " ".join(str(error).split())[:300] or type(error).__name__
        raise ValueError(f"load: {path} {fault}: {cause} Save the model again.") from error


def _read_json(path: Path, limit: int) -> Any:
    if path.stat().st_size > limit:
        raise ValueError(f"it is larger than {limit:,} bytes.")
    return json.loads(path.read_text(encoding="utf-8"), parse_constant=_refuse)


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is not valid JSON.")


def _check_rebuilt(
    model: nnx.Module, arguments: dict[str, Any], arrays: Mapping[str, np.ndarray]
) -> None:
    """Raises a ValueError where the model is not the one that `load` would build."""
    name = type(model).__name__
    kinds = {type(node) for _, node in nnx.iter_modules(model) if isinstance(node, SequenceLayer)}
    classes = _with_own("save", kinds)
    try:
        there, here = _describe(_build(name, arguments, arrays, classes)), _describe(model)
        path = next((p for p in sorted({*there, *here}) if there.get(p) != here.get(p)), None)
        if path is None:
            return
        found = f"{path} is {here.get(path, 'missing')} and not {there.get(path, 'missing')}"
    except ValueError as error:
        found = " ".join(str(error).split())[:300].rstrip(".")
    raise ValueError(
        "save: `model` must be what its constructor arguments build, because `load` builds it from "
        f"them; here {found}. Build a {name} with these options and copy the parameters with "
        "nnx.update, or keep nnx.state(model) with Orbax."
    )


def _describe(model: nnx.Module) -> dict[str, str]:
    """Options, and types and shapes of variables, by their paths; without modes and functions."""
    found = {}
    for path, node in nnx.iter_graph(model):
        if isinstance(node, nnx.Variable):
            value = f"{type(node).__name__} of {node.dtype} with shape {node.shape}"
            found[".".join(map(str, path))] = value
        elif isinstance(node, nnx.Module):
            found[".".join(map(str, path)) or "model"] = type(node).__name__
            for name, value in _options(node):
                found[".".join(map(str, (*path, name)))] = repr(_encode(value))
    return found


def _options(node: Any) -> Iterator[tuple[str, Any]]:
    for name, value in vars(node).items():
        if dataclasses.is_dataclass(value):
            yield from ((f"{name}.{field}", option) for field, option in _options(value))
        elif name not in _MODES and not name.startswith("_") and _is_option(value):
            yield name, value


def _is_option(value: Any) -> bool:
    if isinstance(value, tuple | list):
        return all(_is_option(item) for item in value)
    return value is None or isinstance(value, bool | int | float | str | np.generic)


def _build(
    name: str, arguments: dict[str, Any], arrays: Mapping[str, np.ndarray], classes: Classes
) -> nnx.Module:
    """The model without its values."""
    layer = arguments.get("layer")
    stack = layer if isinstance(layer, list) else [(layer, arguments.get("layer_options", ()))]
    sizes = itertools.chain(arguments.items(), *(options for _, options in stack))
    _check_sizes(sizes, arrays)
    decoded = {name: _decode(value, classes) for name, value in arguments.items()}
    if "layer_options" in decoded:
        decoded["layer_options"] = dict(decoded["layer_options"])
    if isinstance(layer, list):
        decoded["layer"] = [(each, dict(options)) for each, options in decoded["layer"]]
    build: Any = classes[name]
    return nnx.eval_shape(lambda: build(**decoded, rngs=nnx.Rngs(0)))


def _check_sizes(arguments: Iterable[Sequence[Any]], arrays: Mapping[str, np.ndarray]) -> None:
    """Refuses sizes for which there are too few parameters, before anything is made of them."""
    limits = {"n_layers": len(arrays)}
    n = sum(array.size for array in arrays.values())
    for name, value in arguments:
        limit = limits.get(name, n)
        if name.startswith(("d_", "n_")) and isinstance(value, int) and value > limit:
            raise ValueError(
                f"`{name}` is {value}, and the parameters suffice for at most {limit}."
            )


def _variables(state: nnx.State) -> dict[str, nnx.Variable]:
    return {".".join(map(str, path)): variable for path, variable in nnx.to_flat_state(state)}


def _fill(state: nnx.State, arrays: Mapping[str, np.ndarray], folder: Path) -> None:
    variables = _variables(state)
    if variables.keys() != arrays.keys():
        missing, extra = sorted(variables.keys() - arrays), sorted(arrays.keys() - variables)
        raise ValueError(
            f"load: {folder / _ARRAYS} does not fit the model: missing {missing}, "
            f"unexpected {extra}."
        )
    for name, variable in variables.items():
        expected = jax.ShapeDtypeStruct(variable.shape, variable.dtype)
        if arrays[name].shape != expected.shape or arrays[name].dtype != expected.dtype:
            raise ValueError(
                f"load: {name} in {folder / _ARRAYS} must be {expected.dtype} of shape "
                f"{expected.shape}; got {arrays[name].dtype} of shape {arrays[name].shape}."
            )
        variable.set_value(jnp.asarray(arrays[name]))
