"""Data sets of tensorflow-datasets, read without TensorFlow."""

import contextlib
import io
import logging
from collections.abc import Callable, Generator, Iterable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from experiments.data.prepare import prepare_dataset
from experiments.data.readers import read_npz, write_atomically
from experiments.data.sources import Files
from experiments.errors import UsageError, blaming_file

Columns = dict[str, np.ndarray]
IMAGES = ("image", "label")
KIND = "data set as `experiments.data prepare` writes it; prepare it in another --data-dir"


def open_dataset(name: str, files: Files, *, task: str) -> Any:
    """Returns the builder of a prepared data set.

    Args:
        name: the name of the data set in tensorflow-datasets.
        files: the folder of data sets, and whether missing ones may be fetched.
        task: the task that needs the data set, for messages.

    Raises:
        UsageError: if the data set is missing; the message says how to prepare it.
    """
    import tensorflow_datasets as tfds

    with quiet(), blaming_file(files.data_dir / name, KIND):
        builder = tfds.builder(name, data_dir=files.data_dir)
        if files.download and not builder.is_prepared():
            prepare_dataset(task, files.data_dir)
            builder = tfds.builder(name, data_dir=files.data_dir)
        prepared = builder.is_prepared()
    if not prepared:
        raise missing(f"The data set {name}", builder.data_path, files, task=task)
    return builder


def missing(what: str, where: object, files: Files, *, task: str) -> UsageError:
    """Builds the error for missing data."""
    return UsageError(
        f"{what} is not in {where}. Prepare it with `python -m experiments.data prepare "
        f"--task={task} --data-dir={files.data_dir}`, or set --data-dir=DIR to its folder."
    )


def read_examples(builder: Any, split: str) -> list[dict[str, Any]]:
    """Reads all examples of a split; images remain encoded.

    Raises:
        UsageError: if the split is missing, or stored in a form that needs TensorFlow.
    """
    import tensorflow_datasets as tfds

    if split not in builder.info.splits:
        valid = ", ".join(builder.info.splits)
        raise UsageError(f"{builder.data_path} has no split {split!r}, only {valid}.")
    images = [k for k, v in builder.info.features.items() if isinstance(v, tfds.features.Image)]
    with blaming_file(builder.data_path, KIND):
        try:
            source = builder.as_data_source(
                split, decoders=dict.fromkeys(images, tfds.decode.SkipDecoding())
            )
        except NotImplementedError as error:
            raise UsageError(
                f"{builder.data_path} is stored in a format that only TensorFlow reads ({error}). "
                "Prepare it again in another --data-dir, as ArrayRecord files."
            ) from error
        return list(source.__getitems__(list(range(len(source)))))


def read_images(name: str, split: str, files: Files, *, task: str) -> Columns:
    """Reads the images of a split and their labels, in the order of their ids.

    Decoding is slow, so the arrays are cached in the folder ``s5jax`` next to the data set. A data
    set without ids keeps the order of tensorflow-datasets.

    Args:
        name: the name of the data set in tensorflow-datasets.
        split: the split of the data set.
        files: the folder of data sets, and whether missing ones may be fetched.
        task: the task that needs the data set, for messages.

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
    return cached(files.data_dir / "s5jax" / f"{name}-{builder.version}-{split}-{n}.npz", decode)


def _decode(data: bytes, size: tuple[int, int]) -> np.ndarray:
    with Image.open(io.BytesIO(data), formats=("PNG",)) as image:
        if image.size != size:
            raise ValueError(f"an image has {image.size} pixels instead of {size}")
        return np.asarray(image)


def cached(path: Path, compute: Callable[[], Columns], *, names: Iterable[str] = IMAGES) -> Columns:
    """Computes arrays once, and reads them from a file afterwards.

    A corrupted file is made again: the archive has a checksum of each array.
    """
    if path.is_file():
        try:
            columns = read_npz(path)
            if set(columns) == set(names):
                return columns
            print(f"{path} has the arrays {', '.join(columns)}. It is made again.")
        except UsageError as error:
            print(f"{error} It is made again.")
    print(f"Writing {path}, which makes the next start faster.")
    columns = compute()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, lambda file: np.savez(file, allow_pickle=False, **columns))
    except OSError as error:
        print(f"Could not write it: {error}.")
    return columns


@contextlib.contextmanager
def quiet() -> Generator[None]:
    """Silences the library's warnings about folders that it expects."""
    logger = logging.getLogger("absl")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)
