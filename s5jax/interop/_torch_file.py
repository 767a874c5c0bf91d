"""Reads the files of ``torch.save`` without torch, and without executing anything in them."""

import math
import pickle
import sys
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

STORAGES = {
    "DoubleStorage": np.float64,
    "FloatStorage": np.float32,
    "HalfStorage": np.float16,
    "BFloat16Storage": jnp.bfloat16,
    "LongStorage": np.int64,
    "IntStorage": np.int32,
    "ShortStorage": np.int16,
    "CharStorage": np.int8,
    "ByteStorage": np.uint8,
    "BoolStorage": np.bool_,
    "ComplexDoubleStorage": np.complex128,
    "ComplexFloatStorage": np.complex64,
}
"""Classes of the module torch that stand for a dtype, and the dtype."""


class TorchFile(NamedTuple):
    """What a checkpoint holds, of all that is in it."""

    arrays: dict[str, np.ndarray]
    hyper_parameters: Mapping[str, Any]
    """Numbers, strings, lists and dictionaries; empty unless Lightning wrote the file."""


class Storage(NamedTuple):
    """Numbers in a file of their own inside the zip file."""

    dtype: np.dtype
    key: str
    n: int


class Tensor(NamedTuple):
    """A view of a storage."""

    storage: Any
    offset: Any
    shape: Any
    strides: Any
    lazy: Any
    """Which of "conj" and "neg" torch has put off, such as a conjugation."""


class Inert:
    """Stands for an object of any class or a call of any function, and does nothing.

    The methods are those that an unpickler calls on the objects that it makes.
    """

    name = "object"
    items: list[tuple[Any, Any]]
    state: Any

    def __new__(cls, *args: Any, **kwargs: Any) -> "Inert":
        """Makes an object without items and state, which is all that an unpickler may do."""
        self = super().__new__(cls)
        self.items, self.state = [], None
        return self

    def __call__(self, *args: Any, **kwargs: Any) -> "Inert":
        """Stands for the result of a call."""
        return self

    def __setstate__(self, state: Any) -> None:
        """Keeps what a real object would restore itself from."""
        self.state = state

    def __setitem__(self, key: Any, value: Any) -> None:
        """Keeps an item of what may be a dictionary."""
        self.items.append((key, value))

    def append(self, item: Any) -> None:
        """Drops an item of what may be a list."""

    def extend(self, items: Any) -> None:
        """Drops items of what may be a list."""


class Dictionary(dict):
    """Stands for OrderedDict; state, such as the versions of modules, is dropped."""

    def __setstate__(self, state: Any) -> None:
        """Drops the attributes of the real object."""


class StorageType(Inert):
    """Stands for a class of storages."""

    dtype: np.dtype


class RebuildTensor(Inert):
    """Stands for the functions that make tensors, and records what they should make."""

    def __new__(cls, storage: Any, offset: Any, shape: Any, strides: Any, *rest: Any) -> Any:
        """Records a tensor."""
        lazy = rest[2] if len(rest) > 2 and isinstance(rest[2], dict) else {}
        return Tensor(storage, offset, shape, strides, lazy)


class RebuildParameter(Inert):
    """Stands for the function that makes parameters of tensors."""

    def __new__(cls, data: Any, *_: Any) -> Any:
        """Returns the tensor."""
        return data


class Size(tuple):
    """Stands for the shape of a tensor."""


KNOWN = {
    "collections.OrderedDict": Dictionary,
    "torch._utils._rebuild_tensor": RebuildTensor,
    "torch._utils._rebuild_tensor_v2": RebuildTensor,
    "torch._utils._rebuild_parameter": RebuildParameter,
    "torch.Size": Size,
}
"""Stand-ins that do something; every other name becomes `Inert`."""


class Unpickler(pickle.Unpickler):
    """An unpickler that imports nothing."""

    def find_class(self, module_name: str, global_name: str) -> type:
        """Returns a stand-in, whatever a file names; a new one, so that no file can change it."""
        name = f"{module_name}.{global_name}"
        if name in KNOWN:
            return type("Known", (KNOWN[name],), {"name": name})
        if module_name == "torch" and global_name in STORAGES:
            dtype = np.dtype(STORAGES[global_name])
            return type("StorageType", (StorageType,), {"name": name, "dtype": dtype})
        return type("Inert", (Inert,), {"name": name})

    def persistent_load(self, pid: Any) -> Any:
        """Records a storage."""
        match pid:
            case ("storage", type() as kind, str(key), _, int(n)) if issubclass(kind, StorageType):
                return Storage(kind.dtype, key, n)
        return Inert()


def read_torch_file(where: str, path: Path) -> TorchFile:
    """Reads the state dict of a file, and the hyper-parameters that Lightning adds to it.

    Raises:
        ValueError: if the file is not one that ``torch.save`` writes, is corrupted, or does not
            hold a state dict of tensors.
    """
    if not zipfile.is_zipfile(path):
        raise ValueError(
            f"{where}: {path} is not a zip file, as torch.save writes since PyTorch 1.6. Convert "
            "an older one with torch: torch.save(torch.load(path, weights_only=True), path)."
        )
    try:
        with zipfile.ZipFile(path) as archive:
            return _read(archive)
    except Exception as error:
        cause = " ".join(str(error).split())[:300] or type(error).__name__
        raise ValueError(
            f"{where}: {path} is not a checkpoint that can be read without executing it: {cause} "
            "Save the state dict of the model alone, with torch.save(model.state_dict(), path)."
        ) from error


def _read(archive: zipfile.ZipFile) -> TorchFile:
    if any(member.compress_type != zipfile.ZIP_STORED for member in archive.infolist()):
        raise ValueError("torch.save compresses nothing, and this file is compressed.")
    pickles = [n for n in archive.namelist() if n.count("/") == 1 and n.endswith("/data.pkl")]
    if len(pickles) != 1:
        raise ValueError(f"it must hold one data.pkl in a folder; got {len(pickles)}.")
    folder = pickles[0].removesuffix("data.pkl")
    with archive.open(pickles[0]) as file:
        content = Unpickler(file).load()
    tensors, hyper_parameters = _state_dict(content)
    order = f"{folder}byteorder"
    big = order in archive.namelist() and archive.read(order) == b"big"
    arrays = {name: _array(archive, folder, name, t, big) for name, t in tensors.items()}
    return TorchFile(arrays, hyper_parameters)


def _state_dict(content: Any) -> tuple[dict[str, Tensor], Mapping[str, Any]]:
    """Tensors by name, in a checkpoint of Lightning or of a program, or alone in the file."""
    found, hyper_parameters = content, {}
    if isinstance(content, dict):
        for key in ("state_dict", "model", "model_state_dict"):
            if isinstance(content.get(key), dict):
                found = content[key]
                break
        hyper_parameters = plain(content.get("hyper_parameters"))
    if not isinstance(found, dict) or not found:
        kind = found.name if isinstance(found, Inert) else type(found).__name__
        raise ValueError(f"it must hold a state dict; got {kind}.")
    for name, value in found.items():
        if not (isinstance(name, str) and isinstance(value, Tensor)):
            kind = value.name if isinstance(value, Inert) else type(value).__name__
            raise ValueError(
                f"its state dict must hold tensors; got {kind} as {str(name)[:100]!r}."
            )
    is_plain = isinstance(hyper_parameters, dict)
    return dict(found), hyper_parameters if is_plain else {}


def plain(value: Any) -> Any:
    """Returns numbers, strings, lists and dictionaries, also from OmegaConf's; None for the rest.

    A value that OmegaConf interpolates is left out, because its rule is not executed.
    """
    if isinstance(value, Inert):
        state = value.state if isinstance(value.state, dict) else {}
        inside = [state[key] for key in ("_content", "_val") if key in state]
        value = inside[0] if inside else dict(value.items)
    if isinstance(value, dict):
        return {str(key): plain(v) for key, v in value.items()}
    if isinstance(value, list | tuple):
        return [plain(v) for v in value]
    is_text = isinstance(value, str) and "${" not in value
    return value if is_text or isinstance(value, bool | int | float) else None


def _array(
    archive: zipfile.ZipFile, folder: str, name: str, tensor: Tensor, big: bool
) -> np.ndarray:
    """The values of a tensor, as an array of its own."""
    storage, offset, shape, strides, lazy = tensor
    sizes = (offset, *shape, *strides)
    fits = isinstance(storage, Storage) and len(shape) == len(strides)
    if not fits or any(type(size) is not int or size < 0 for size in sizes):
        raise ValueError(f"its tensor {name!r} is not stored as torch.save stores dense tensors.")
    n = math.prod(shape)
    last = offset + sum((size - 1) * stride for size, stride in zip(shape, strides, strict=True))
    data = archive.read(f"{folder}data/{storage.key}")
    n_bytes = storage.n * storage.dtype.itemsize
    if len(data) < n_bytes or (n and (last >= storage.n or n > storage.n)):
        raise ValueError(f"its tensor {name!r} has more numbers than are stored.")
    values = np.frombuffer(data, storage.dtype, storage.n)
    values = values.byteswap() if big != (sys.byteorder == "big") else values
    steps = [stride * storage.dtype.itemsize for stride in strides]
    view = np.lib.stride_tricks.as_strided(values[offset:], shape, steps) if n else values[:0]
    array = np.array(view).reshape(shape)
    array = array.conj() if lazy.get("conj") else array
    return -array if lazy.get("neg") else array
