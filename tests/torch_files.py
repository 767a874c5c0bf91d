"""Files in the form of ``torch.save``, with the opcodes that torch writes, without torch."""

import collections
import dataclasses
import io
import pickle
import zipfile
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

STORAGES = {
    "float64": "DoubleStorage",
    "float32": "FloatStorage",
    "int64": "LongStorage",
    "bool": "BoolStorage",
    "complex64": "ComplexFloatStorage",
}


@dataclasses.dataclass(frozen=True)
class Global:
    """A class or function that need not exist here."""

    module: str
    name: str

    def __call__(self, *args: Any) -> None:
        raise AssertionError("a stand-in is only pickled")


@dataclasses.dataclass
class Instance:
    """An object of such a class, with its state."""

    kind: Global
    state: Any


@dataclasses.dataclass
class View:
    """A tensor that shares its storage: offset, shape and strides, and what torch has put off."""

    storage: np.ndarray
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    lazy: dict[str, bool] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass
class Storage:
    array: np.ndarray
    key: str


class TorchPickler(pickle._Pickler):  # ty: ignore[unresolved-attribute]
    dispatch: ClassVar = dict(pickle._Pickler.dispatch)  # ty: ignore[unresolved-attribute]

    def __init__(self, file: io.BytesIO) -> None:
        super().__init__(file, protocol=2)
        self.storages: list[np.ndarray] = []

    def persistent_id(self, obj: Any) -> Any:
        if not isinstance(obj, Storage):
            return None
        kind = Global("torch", STORAGES[obj.array.dtype.name])
        return ("storage", kind, obj.key, "cpu", obj.array.size)

    def save_global_stand_in(self, obj: Global) -> None:
        self.write(pickle.GLOBAL + f"{obj.module}\n{obj.name}\n".encode())
        self.memoize(obj)

    def save_instance(self, obj: Instance) -> None:
        self.save(obj.kind)
        self.save(())
        self.write(pickle.NEWOBJ)
        self.memoize(obj)
        self.save(obj.state)
        self.write(pickle.BUILD)

    def save_array(self, obj: np.ndarray) -> None:
        strides = tuple(stride // obj.itemsize for stride in np.array(obj, order="C").strides)
        self.save_view(View(obj.ravel(), 0, obj.shape, strides))

    def save_view(self, obj: View) -> None:
        storage = Storage(obj.storage, str(len(self.storages)))
        self.storages.append(obj.storage)
        arguments = (storage, obj.offset, obj.shape, obj.strides, False, collections.OrderedDict())
        arguments += (obj.lazy,) if obj.lazy else ()
        self.save_reduce(Global("torch._utils", "_rebuild_tensor_v2"), arguments, obj=obj)

    dispatch[Global] = save_global_stand_in
    dispatch[Instance] = save_instance
    dispatch[np.ndarray] = save_array
    dispatch[View] = save_view


def write_torch_file(path: Path, content: Any, *, order: str = "little") -> Path:
    """Writes what ``torch.save(content, path)`` would, for arrays instead of tensors."""
    buffer = io.BytesIO()
    pickler = TorchPickler(buffer)
    pickler.dump(content)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(f"{path.stem}/data.pkl", buffer.getvalue())
        archive.writestr(f"{path.stem}/byteorder", order)
        for i, array in enumerate(pickler.storages):
            array = array.byteswap() if order == "big" else array
            archive.writestr(f"{path.stem}/data/{i}", array.tobytes())
        archive.writestr(f"{path.stem}/version", "3\n")
    return path
