"""Folders ``CLASS/*`` of a user's own files."""

from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from experiments.data.sounds import SUFFIXES
from experiments.errors import UsageError

IGNORED = ("__macosx", "thumbs.db", "desktop.ini")
FORMS = "a .npz file with arrays x and y, or a folder CLASS/*.csv or CLASS/*.wav"


def check_training_path(path: Path) -> None:
    """Raises a UsageError unless the path is a folder or a .npz file."""
    if not path.exists():
        raise UsageError(f"No file or folder {path}: --data.file must name {FORMS}.")
    if path.is_file() and _is_example(path):
        raise UsageError(
            f"{path} is one sequence, and training needs {FORMS}: put the sequences of each class "
            "into a folder with the name of the class."
        )


def list_classes(path: Path) -> tuple[list[Path], tuple[str, ...]]:
    """Lists the files of all classes in alphabetical order, and remarks about skipped files.

    Raises:
        UsageError: if there are fewer than two classes, a class has no files, CSV files and sounds
            are mixed, or files are next to the folders.
    """
    entries = _visible(path)
    folders = [entry for entry in entries if entry.is_dir()]
    loose = [entry for entry in entries if not entry.is_dir()]
    contents = {folder: _visible(folder) for folder in folders}
    files = [file for inside in contents.values() for file in inside if _is_example(file)]
    if len(folders) < 2:
        raise UsageError(
            f"{path} must hold two or more folders, one per class, of CSV files or sounds; got "
            f"{_describe(entries)}."
        )
    for folder, inside in contents.items():
        if not any(map(_is_example, inside)):
            raise UsageError(
                f"{folder} must hold .csv files or sounds, as each folder is a class; got "
                f"{_describe(inside)}. Convert the files, or remove the folder."
            )
    kinds = {file.suffix.lower() for file in files}
    if ".csv" in kinds and len(kinds) > 1:
        raise UsageError(
            f"{path} must hold CSV files or sounds; got {_describe(files)}. Keep one kind."
        )
    if misplaced := [file for file in loose if _is_example(file)]:
        raise UsageError(
            f"{misplaced[0]} is next to the class folders: move it into one of them, or remove it."
        )
    left = [*loose, *(f for inside in contents.values() for f in inside if not _is_example(f))]
    return files, (f"Left out: {_describe(left)}, such as {left[0]}.",) if left else ()


def _visible(folder: Path) -> list[Path]:
    """Lists a folder without the hidden files of systems and editors."""
    names = sorted(folder.iterdir())
    return [p for p in names if not p.name.startswith(".") and p.name.lower() not in IGNORED]


def _is_example(path: Path) -> bool:
    return path.suffix.lower() in (".csv", *SUFFIXES) and not path.is_dir()


def _describe(paths: Iterable[Path]) -> str:
    """Counts paths by kind, as in ``"3 .txt files and 1 folder"``."""
    kinds = Counter("folder" if p.is_dir() else f"{p.suffix.lower()} file".strip() for p in paths)
    parts = [f"{n} {kind}{'' if n == 1 else 's'}" for kind, n in sorted(kinds.items())]
    return " and ".join(parts) or "nothing"
