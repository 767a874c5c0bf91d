"""Layers and models on disk: constructor arguments as JSON, arrays as safetensors."""

import contextlib
import dataclasses
import inspect
import json
from collections.abc import Callable, Generator, Iterable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from safetensors.numpy import load_file, save_file

from s5jax._errors import check_choice
from s5jax.models._pipeline import Pipeline, Preprocessing

_CONFIG, _ARRAYS = "model.json", "parameters.safetensors"
_PREPROCESSING = "preprocessing.json"
_MAX_CONFIG = 2**20
_MAX_PREPROCESSING = 2**26
_MODES = ("deterministic", "use_running_average")


def save(model: nnx.Module, folder: str | Path) -> None:
    """Writes a layer or model of this library to a folder.

    ``model.json`` holds its class and constructor arguments, ``parameters.safetensors`` its
    parameters and running statistics; a `Pipeline` adds ``preprocessing.json``. None of them can
    execute anything when read.

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
    check_choice("save", "model", type(model).__name__, _classes())
    name, arguments = type(model).__name__, _arguments(type(model))
    config = {
        "s5jax": version("s5jax"),
        "class": name,
        "arguments": {argument: _encode(getattr(model, argument)) for argument in arguments},
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


def load(folder: str | Path) -> Any:
    """Reads back what `save` wrote, in evaluation mode.

    Args:
        folder: the folder given to `save`.

    Returns:
        The layer or model, or the `Pipeline` with which a training run ends; call ``.train()`` on
        it to train it further.

    Raises:
        FileNotFoundError: if the folder does not hold the two files.
        ValueError: if a file is corrupted, or names or shapes do not fit the class.

    Example:
        See `save`.
    """
    folder = Path(folder)
    for name in (_CONFIG, _ARRAYS):
        if not (folder / name).is_file():
            raise FileNotFoundError(
                f"load: {folder / name} does not exist; `folder` must be one that s5jax.save "
                "wrote, such as the folder `model` of a finished run."
            )
    with _blaming(folder / _CONFIG, "is damaged"):
        name, arguments = _read_config(folder / _CONFIG)
    with _blaming(folder / _ARRAYS, "is damaged"):
        arrays = load_file(folder / _ARRAYS)
    with _blaming(folder / _CONFIG, "does not describe a model of this version of s5jax"):
        model = _build(name, arguments, arrays)
    graphdef, state = nnx.split(model)
    _fill(state, arrays, folder)
    model: Any = nnx.merge(graphdef, state)
    if (folder / _PREPROCESSING).is_file():
        with _blaming(folder / _PREPROCESSING, "is corrupted"):
            model = Pipeline(model, _read_preprocessing(folder / _PREPROCESSING))
    model.eval()
    return model


def _classes() -> dict[str, type[nnx.Module]]:
    from s5jax import layers, models

    kinds = (layers.SequenceLayer, models.SequenceBackbone)
    return {
        name: value
        for name, value in {**vars(layers), **vars(models)}.items()
        if inspect.isclass(value) and issubclass(value, kinds) and "rngs" in _signature(value)
    }


def _signature(cls: type) -> Mapping[str, inspect.Parameter]:
    return inspect.signature(cls.__init__).parameters


def _arguments(cls: type) -> list[str]:
    """Names of the constructor's arguments, each of which the object keeps as an attribute."""
    own = [p for p in _signature(cls).values() if p.name not in ("self", "rngs")]
    names = [p.name for p in own if p.kind is not p.VAR_KEYWORD]
    if len(names) < len(own):
        names += [name for name in _arguments(cls.__mro__[1]) if name not in names]
    return names


def _encode(value: Any) -> Any:
    if inspect.isclass(value) and issubclass(value, nnx.Module):
        check_choice("save", "layer", value.__name__, _classes())
        return {"class": value.__name__}
    if isinstance(value, np.floating):
        value = float(
            str(value)
        )  # 0.1 of float32 as 0.1, since it may be compared with other options
    if isinstance(value, np.generic | np.ndarray | jax.Array):
        value = value.tolist()
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, tuple | list):
        return [_encode(item) for item in value]
    return {"dtype": jnp.dtype(value).name}


def _decode(value: Any) -> Any:
    if isinstance(value, list):
        return [_decode(item) for item in value]
    if isinstance(value, dict) and "class" in value:
        classes = _classes()
        check_choice("load", "class", value["class"], classes)
        return classes[value["class"]]
    return jnp.dtype(value["dtype"]) if isinstance(value, dict) else value


@contextlib.contextmanager
def _blaming(path: Path, fault: str) -> Generator[None]:
    """Whatever is raised because of a file becomes one sentence that names it."""
    try:
        yield
    except Exception as error:
        said = " ".join(str(error).split())[:300] or type(error).__name__
        raise ValueError(f"load: {path} {fault}: {said} Save the model again.") from error


def _read_config(path: Path) -> tuple[str, dict[str, Any]]:
    config = _read_json(path, _MAX_CONFIG)
    return config["class"], config["arguments"]


def _read_preprocessing(path: Path) -> Preprocessing:
    return Preprocessing(**_read_json(path, _MAX_PREPROCESSING))


def _read_json(path: Path, limit: int) -> Any:
    if path.stat().st_size > limit:
        raise ValueError(f"it is larger than {limit:,} bytes.")
    return json.loads(path.read_text(encoding="utf-8"), parse_constant=_refuse)


def _check_rebuilt(
    model: nnx.Module, arguments: dict[str, Any], arrays: Mapping[str, np.ndarray]
) -> None:
    """Raises a ValueError where the model is not the one that `load` would build."""
    name = type(model).__name__
    try:
        there, here = _describe(_build(name, arguments, arrays)), _describe(model)
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
            for name, value in vars(node).items():
                if name not in _MODES and not name.startswith("_") and _is_option(value):
                    found[".".join(map(str, (*path, name)))] = repr(_encode(value))
    return found


def _is_option(value: Any) -> bool:
    if isinstance(value, tuple | list):
        return all(_is_option(item) for item in value)
    return value is None or isinstance(value, bool | int | float | str | np.generic)


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is no number in JSON.")


def _build(name: str, arguments: dict[str, Any], arrays: Mapping[str, np.ndarray]) -> nnx.Module:
    """The model without its values."""
    classes: dict[str, Callable[..., nnx.Module]] = {**_classes()}
    check_choice("load", "class", name, classes)
    _check_sizes([*arguments.items(), *arguments.get("layer_options", ())], arrays)
    decoded = {name: _decode(value) for name, value in arguments.items()}
    return nnx.eval_shape(lambda: classes[name](**decoded, rngs=nnx.Rngs(0)))


def _check_sizes(arguments: Iterable[tuple[str, Any]], arrays: Mapping[str, np.ndarray]) -> None:
    """Refuses sizes for which there are too few parameters, before anything is made of them."""
    limits = {"n_layers": len(arrays)}
    n = sum(array.size for array in arrays.values())
    for name, value in arguments:
        limit = limits.get(name, n)
        if name.startswith(("d_", "n_")) and isinstance(value, int) and value > limit:
            raise ValueError(
                f"`{name}` is {value}, and the parameters are those of at most {limit}."
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
