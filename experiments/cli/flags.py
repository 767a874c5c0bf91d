"""Flags that several commands share, and the reading of command lines."""

import dataclasses
import inspect
import re
import sys
from pathlib import Path
from typing import Annotated, Any, TypeVar

import tyro
from tyro.constructors import ConstructorRegistry, PrimitiveConstructorSpec, PrimitiveTypeInfo

from experiments.data.sources import DATA_DIR, Files
from experiments.files import user_path

Switch = Annotated[bool, tyro.conf.FlagCreatePairsOff]
Name = Annotated[str | None, tyro.conf.arg(metavar="NAME")]
MeshSpec = Annotated[str | None, tyro.conf.arg(metavar="data=N,seq=M")]
Flags = TypeVar("Flags")
REGISTRY = ConstructorRegistry()


@REGISTRY.primitive_rule
def path_rule(info: PrimitiveTypeInfo) -> PrimitiveConstructorSpec[Path] | None:
    """Reads paths as users write them, with a leading ``~``."""
    if info.type is not Path:
        return None
    return PrimitiveConstructorSpec(
        nargs=1,
        metavar="PATH",
        instance_from_str=lambda args: user_path(args[0]),
        is_instance=lambda value: isinstance(value, Path),
        str_from_instance=lambda path: [str(path)],
    )


def read_flags(
    flags: type[Flags], *, prog: str | None = None, description: str | None = None, **options: Any
) -> Any:
    """Reads a command line into a dataclass; the options are those of ``tyro.cli``."""
    description = description or inspect.getdoc(flags) or ""
    return tyro.cli(
        flags,
        registry=REGISTRY,
        prog=as_started(prog or ""),
        description=as_started(description),
        **options,
    )


def as_started(text: str) -> str:
    """Spells the commands in a text as the user does, who may have started ``s5jax``.

    Texts name a command as ``python -m experiments.NAME``.
    """
    if Path(sys.argv[0]).stem != "s5jax":
        return text
    return re.sub(r"python -m experiments\.(?=\w)", "s5jax ", text)


@dataclasses.dataclass(frozen=True, kw_only=True)
class FileFlags:
    """Location of the data sets."""

    data_dir: Annotated[Path, tyro.conf.arg(metavar="DIR")] = DATA_DIR
    """Folder of the data sets, in the layout of tensorflow-datasets."""
    download: Switch = False
    """Download a missing data set from its publisher."""

    def files(self) -> Files:
        """Returns the location in the form that tasks accept."""
        return Files(self.data_dir, self.download)
