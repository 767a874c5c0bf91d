"""Data sets of tensorflow-datasets, read without TensorFlow."""

import contextlib
import io
import logging
import os
import tempfile
from collections.abc import Callable, Generator, Iterable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from experiments.errors import UsageError, blaming_file
from experiments.prepare import prepare
from experiments.tasks._readers import read_npz
from experiments.tasks._task import Files

Columns = dict[str, np.ndarray]
IMAGES = ("image", "label")
KIND = "data set as `experiments.data prepare` writes it; prepare it in another --data-dir"


def open_dataset(name: str, files: Files, *, task: str) -> Any:
    """The builder of a data set that lies in the folder of data sets.

    Args:
        name: of the data set in tensorflow-datasets.
        files: where it lies, and whether it may be fetched.
        task: the task that asks for it.

    Raises:
        UsageError: if it is not there; says where it should be, and how it gets there.
    """
    import tensorflow_datasets as tfds

    with quiet(), blaming_file(files.data_dir / name, KIND):
        builder = tfds.builder(name, data_dir=files.data_dir)
        if files.download and not builder.is_prepared():
            prepare(task, files.data_dir)
            builder = tfds.builder(name, data_dir=files.data_dir)
        prepared = builder.is_prepared()
    if not prepared:
        raise missing(f"The data set {name}", builder.data_path, files, task=task)
    return builder


def missing(what: str, where: object, files: Files, *, task: str) -> UsageError:
    """The error for data that are not there."""
    return UsageError(
        f"{what} is not in {where}. Prepare it with `python -m experiments.data prepare "
        f"--task={task} --data-dir={files.data_dir}`, or say with --data-dir=DIR where it lies."
    )


def read_examples(builder: Any, split: str) -> list[dict[str, Any]]:
    """All examples of a split, images as the bytes of their files.

    Raises:
        UsageError: if the split is missing, or stored in a form that needs TensorFlow.
    """
    import tensorflow_datasets as tfds

    if split not in builder.info.splits:
        raise UsageError(
            f"{builder.data_path} has no split {split!r}, only {', '.join(builder.info.splits)}."
        )
    images = [k for k, v in builder.info.features.items() if isinstance(v, tfds.features.Image)]
    with blaming_file(builder.data_path, KIND):
        try:
            source = builder.as_data_source(
                split, decoders=dict.fromkeys(images, tfds.decode.SkipDecoding())
            )
        except NotImplementedError as error:
            raise UsageError(
                f"{builder.data_path} is stored in a form that only TensorFlow reads ({error}). "
                "Prepare it anew in another --data-dir, as ArrayRecord files."
            ) from error
        return list(source.__getitems__(list(range(len(source)))))


def read_images(name: str, split: str, files: Files, *, task: str) -> Columns:
    """The decoded images of a split and their labels, in the order of their ids.

    Decoding takes ten seconds or so: the arrays are kept beside the data set, in the folder
    ``s5jax``. A data set without ids keeps the order that tensorflow-datasets gave it.

    Args:
        name: of the data set in tensorflow-datasets.
        split: of the data set.
        files: where it lies, and whether it may be fetched.
        task: the task that asks for it.

    Returns:
        ``image``, uint8 of shape ``(n, height, width)`` or ``(n, height, width, 3)``, and
        ``label``, int32 of shape ``(n,)``.
    """
    builder = open_dataset(name, files, task=task)

    def decode() -> Columns:
        examples = read_examples(builder, split)
        if "id" in builder.info.features:
            examples.sort(key=lambda example: example["id"])
        height, width, _ = builder.info.features["image"].shape
        with blaming_file(builder.data_path, KIND):
            image = np.stack([_decode(x["image"], (width, height)) for x in examples])
            return {"image": image, "label": np.array([x["label"] for x in examples], np.int32)}

    n = builder.info.splits[split].num_examples
    return keep(files.data_dir / "s5jax" / f"{name}-{builder.version}-{split}-{n}.npz", decode)


def _decode(data: bytes, size: tuple[int, int]) -> np.ndarray:
    with Image.open(io.BytesIO(data), formats=("PNG",)) as image:
        if image.size != size:
            raise ValueError(f"an image has {image.size} pixels, and {size} are due")
        return np.asarray(image)


def keep(path: Path, compute: Callable[[], Columns], *, names: Iterable[str] = IMAGES) -> Columns:
    """Arrays that are computed once, and read from a file of theirs from then on.

    A damaged file is made again: the archive has a checksum of each array.
    """
    if path.is_file():
        try:
            columns = read_npz(path)
            if set(columns) == set(names):
                return columns
            print(f"{path} holds {', '.join(columns)}. It is made again.")
        except UsageError as error:
            print(f"{error} It is made again.")
    print(f"Writing {path}, which makes the next start faster.")
    columns = compute()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=path.parent) as folder:
            part = Path(folder) / path.name
            np.savez(part, allow_pickle=False, **columns)
            os.replace(part, path)
    except OSError as error:
        print(f"Could not write it: {error}.")
    return columns


@contextlib.contextmanager
def quiet() -> Generator[None]:
    """Without the library's remarks on folders that it expects to be there."""
    logger = logging.getLogger("absl")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)
