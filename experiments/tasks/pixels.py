"""Images read pixel by pixel: CIFAR-10, MNIST, and the small digits of scikit-learn.

The splits are published: a tenth of the training images is the validation set, drawn as PyTorch
draws it with seed 42. For CIFAR-10 these are the published images. tensorflow-datasets does not
keep the order of MNIST, so only the sizes of its splits agree.
"""

import abc
import dataclasses
import functools
from typing import Any, ClassVar, Literal, get_args

import jax
import jax.numpy as jnp
import numpy as np

import s5jax
from experiments.data.held_out import Parts, RowsSource, first_rows, hold_out, published_order
from experiments.data.sources import DEFAULT_PATHS, Batch, DataOptions, Files, Source, Split
from experiments.data.tfds import Columns, read_images
from experiments.tasks._task import Task

N_PIXELS = 1024
N_DIGIT = 64
MAX_SHIFT = 4
SPLITS: tuple[Split, ...] = get_args(Split)


@dataclasses.dataclass(frozen=True, kw_only=True)
class CifarOptions(DataOptions):
    """Data: CIFAR-10."""

    n_train: int = 45_000
    n_validation: int = 5_000
    n_test: int = 10_000
    augment: bool = False
    """Whether training images are mirrored at random and shifted by up to 4 pixels."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class ColourOptions(CifarOptions):
    """Data: CIFAR-10 in colour."""

    std: tuple[float, float, float] = (0.247, 0.243, 0.261)
    """Divisors of red, green and blue; HOPE's scripts and S4's stand-alone example have 0.2023,
    0.1994 and 0.2010."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class NoisyCifarOptions(ColourOptions):
    """Data: CIFAR-10 in colour, followed by noise."""

    std: tuple[float, float, float] = (0.2023, 0.1994, 0.2010)
    tail: int = N_PIXELS
    """Steps of noise; the answer is read during the last 1024."""

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_tail(self, self.tail, N_PIXELS)


@dataclasses.dataclass(frozen=True, kw_only=True)
class MnistOptions(DataOptions):
    """Data: MNIST."""

    n_train: int = 54_000
    n_validation: int = 6_000
    n_test: int = 10_000


@dataclasses.dataclass(frozen=True, kw_only=True)
class DigitsOptions(DataOptions):
    """Data: scikit-learn's handwritten digits."""

    n_train: int = 1_200
    n_validation: int = 297
    n_test: int = 300


@dataclasses.dataclass(frozen=True, kw_only=True)
class NoisyDigitsOptions(DigitsOptions):
    """Data: scikit-learn's handwritten digits, followed by noise."""

    tail: int = N_DIGIT
    """Steps of noise; the answer is read during the last 64."""

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_tail(self, self.tail, N_DIGIT)


class Images(Task):
    """Base class of images in ten classes, flattened row by row."""

    d_input = 1
    d_output = 10

    def source(self, split: Split, *, seed: int) -> Source:
        """Returns images as bytes and labels, which are the same for every seed."""
        del seed
        columns, rows = self.rows(split)
        return RowsSource(rows, **columns)

    def inputs(self, batch: Batch) -> dict[str, jax.Array]:
        """Returns the standardised pixels, ``u`` of shape ``(B, n_pixels, 1)``."""
        mean, std = self.input_moments
        u = (batch["image"].astype(jnp.float32) - mean) / std
        return {"u": u.reshape(len(u), -1, self.d_input)}

    @abc.abstractmethod
    def rows(self, split: Split) -> tuple[Columns, np.ndarray]:
        """Returns arrays, and the indices of a split's rows."""


class HeldOutImages(Images):
    """Base class of data sets of tensorflow-datasets, whose training split is divided."""

    dataset: ClassVar[str]
    name: ClassVar[str]
    """The name of the task, for messages."""
    grey: ClassVar[bool] = False
    """Whether colours are converted to grey values."""

    def rows(self, split: Split) -> tuple[Columns, np.ndarray]:
        """Returns the arrays of a split in tensorflow-datasets, and the indices of rows."""
        read = functools.partial(_read, self.dataset, self.name, self.files, self.grey)
        columns = {part: read(part) for part in ("train", "test")}
        train, validation = hold_out(len(columns["train"]["label"]), 0.1)
        test = np.arange(len(columns["test"]["label"]))
        parts: Parts = {"train": train, "validation": validation, "test": test}
        rows = first_rows(self.options, parts)[split]
        return columns["test" if split == "test" else "train"], rows


class Cifar(HeldOutImages):
    """Base class of CIFAR-10: 1024 pixels."""

    dataset = "cifar10"
    length = N_PIXELS

    def expand(self, batch: Batch) -> Batch:
        """Mirrors and shifts training images, anew in each epoch, if the options say so."""
        if not self.options.augment or "mask" in batch:  # only evaluation has a mask
            return batch

        def draw(image: jax.Array, epoch: jax.Array, index: jax.Array) -> jax.Array:
            key = jax.random.fold_in(jax.random.fold_in(jax.random.key(0), epoch), index)
            return mirror_and_shift(image, key)

        image = jax.vmap(draw)(batch["image"], batch["epoch"], batch["index"])
        return {**batch, "image": image}


class GreyCifar(Cifar):
    r"""Grey CIFAR-10, the image task of Long Range Arena: 1024 steps of one value.

    .. math:: u = (x / 255 - 122.6 / 255) / (61 / 255)
    """

    options_type = CifarOptions
    name, grey = "image", True
    input_moments = 122.6, 61.0


class ColourCifar(Cifar):
    """CIFAR-10 in colour: 1024 steps of three standardised values."""

    options_type = ColourOptions
    name = "scifar"
    d_input = 3
    mean: ClassVar = np.array([0.4914, 0.4822, 0.4465])
    """The means of red, green and blue."""

    def __init__(self, options: ColourOptions, files: Files = DEFAULT_PATHS) -> None:
        super().__init__(options, files)
        self.input_moments = 255 * self.mean, 255 * np.array(options.std)

    def inputs(self, batch: Batch) -> dict[str, jax.Array]:
        """Returns ``u`` of shape ``(B, 1024, 3)``."""
        mean, std = jnp.array(self.mean), jnp.array(self.options.std)
        u = (batch["image"].astype(jnp.float32) / 255 - mean) / std
        return {"u": u.reshape(-1, N_PIXELS, 3)}


class Mnist(HeldOutImages):
    """MNIST: 784 steps of one value from 0 to 1."""

    options_type = MnistOptions
    dataset, name = "mnist", "smnist"
    length = 784
    input_moments = 0.0, 255.0


class PermutedMnist(Mnist):
    """MNIST in the bit-reversed order of S4's loader."""

    name = "psmnist"

    def inputs(self, batch: Batch) -> dict[str, jax.Array]:
        """Returns ``u`` of shape ``(B, 784, 1)``."""
        return {"u": super().inputs(batch)["u"][:, bit_reversal(self.length)]}


class Digits(Images):
    """Handwritten digits of scikit-learn with 8 x 8 pixels: 64 steps from 0 to 1.

    Training, validation and test images are consecutive in a fixed random order of all 1,797.
    """

    options_type = DigitsOptions
    length = N_DIGIT
    input_moments = 0.0, 16.0

    def rows(self, split: Split) -> tuple[Columns, np.ndarray]:
        """Returns the arrays, and a part of one permutation."""
        columns = _read_digits()
        order = published_order(len(columns["label"]))
        parts = dict(zip(SPLITS, np.split(order, [1_200, 1_497]), strict=True))
        return columns, first_rows(self.options, parts)[split]


class NoisyTail(Images):
    """HOPE's test of memory: an image, then noise, during which the answer is read.

    The noise is uniform in [0, 1), and new each time that an example is trained on. It is the same
    in every evaluation, so that checkpoints can be compared. The published model averages its last
    outputs, as many as the image has pixels, and then decodes them linearly. Here the decoded
    outputs are averaged, which is equivalent.
    """

    head = "label"
    causal = True

    def __init__(self, options: Any, files: Files = DEFAULT_PATHS) -> None:
        super().__init__(options, files)
        self.n_pixels, self.length = self.length, self.length + options.tail

    @functools.cached_property
    def preprocessing(self) -> s5jax.Preprocessing:
        """Standardises the image, and leaves the noise as it is."""
        mean, std = np.zeros((self.length, self.d_input)), np.ones((self.length, self.d_input))
        mean[: self.n_pixels], std[: self.n_pixels] = self.input_moments
        return s5jax.Preprocessing(input_mean=mean, input_std=std, classes=self.classes)

    def source(self, split: Split, *, seed: int) -> Source:
        """Returns images, labels, and keys of the noise."""
        columns, rows = self.rows(split)
        return _NoiseKeys(split, seed, rows, columns)

    def expand(self, batch: Batch) -> Batch:
        """Draws ``noise`` of shape ``(B, tail, d_input)``."""
        shape = self.options.tail, self.d_input

        def draw(key: jax.Array) -> jax.Array:
            return jax.random.uniform(jax.random.wrap_key_data(key), shape)

        return {**super().expand(batch), "noise": jax.vmap(draw)(batch["key"])}

    def inputs(self, batch: Batch) -> dict[str, jax.Array]:
        """Returns ``u`` of shape ``(B, n_pixels + tail, d_input)``."""
        image = super().inputs(batch)["u"]
        return {"u": jnp.concatenate([image, batch["noise"]], axis=1)}

    def measure(self, outputs: jax.Array, batch: Batch) -> dict[str, jax.Array]:
        """Returns cross entropy and accuracy of the mean of the last logits."""
        return super().measure(outputs[:, -self.n_pixels :].mean(axis=1), batch)


class NoisyCifar(NoisyTail, ColourCifar):
    """CIFAR-10 in colour and noise, by default 2048 steps."""

    options_type = NoisyCifarOptions
    name = "noisy_scifar"


class NoisyDigits(NoisyTail, Digits):
    """Handwritten digits of scikit-learn and noise, by default 128 steps."""

    options_type = NoisyDigitsOptions


def mirror_and_shift(image: jax.Array, key: jax.Array) -> jax.Array:
    """Mirrors an image left to right or not, and shifts it by up to 4 pixels along both axes.

    Pixels that enter from outside are zero: black.

    Args:
        image: shape ``(height, width)`` or ``(height, width, d)``.
        key: key of the random numbers.

    Returns:
        An image of the same shape.

    Example:
        >>> image = jnp.arange(1024).reshape(32, 32)
        >>> mirror_and_shift(image, jax.random.key(0)).shape
        (32, 32)
    """
    key_mirror, key_shift = jax.random.split(key)
    image = jnp.where(jax.random.bernoulli(key_mirror), jnp.flip(image, axis=1), image)
    edges = [(MAX_SHIFT, MAX_SHIFT)] * 2 + [(0, 0)] * (image.ndim - 2)
    top, left = jax.random.randint(key_shift, (2,), 0, 2 * MAX_SHIFT + 1)
    start = (top, left, *[0] * (image.ndim - 2))
    return jax.lax.dynamic_slice(jnp.pad(image, edges), start, image.shape)


def bit_reversal(n: int) -> np.ndarray:
    """Returns the numbers below n, in the order of their reversed binary digits.

    Args:
        n: the number of integers.

    Returns:
        Integers of shape ``(n,)``.

    Example:
        >>> bit_reversal(6).tolist()
        [0, 4, 2, 1, 5, 3]
    """
    n_bits = (n - 1).bit_length()
    order = np.array([int(f"{i:0{n_bits}b}"[::-1], 2) for i in range(2**n_bits)])
    return order[order < n]


def to_grey(image: np.ndarray) -> np.ndarray:
    """Computes the luma of ITU-R 601 in the integer arithmetic of Pillow.

    Args:
        image: uint8 of shape ``(*batch, 3)``.

    Returns:
        uint8 of shape ``(*batch,)``.

    Example:
        >>> to_grey(np.array([[255, 0, 0], [10, 20, 30]], np.uint8)).tolist()
        [76, 18]
    """
    weighted = image[..., 0] * np.uint32(19595)
    weighted += image[..., 1] * np.uint32(38470)
    weighted += image[..., 2] * np.uint32(7471)
    return ((weighted + 0x8000) >> 16).astype(np.uint8)


def _check_tail(options: DataOptions, tail: int, n_pixels: int) -> None:
    if tail < n_pixels:
        raise ValueError(
            f"{type(options).__name__}: `tail` must be at least {n_pixels}, the steps during which "
            f"the answer is read; got {tail}."
        )


class _NoiseKeys(RowsSource):
    """Rows with a ``key``: two words that depend on seed, split, epoch and example."""

    in_memory = False

    def __init__(self, split: Split, seed: int, rows: np.ndarray, columns: Columns) -> None:
        super().__init__(rows, **columns)
        self._split, self._seed = split, seed

    def batch(self, indices: np.ndarray, *, epoch: int) -> dict[str, np.ndarray]:
        """Returns rows of the arrays, and a key for each."""
        seeds = np.random.SeedSequence((self._seed, SPLITS.index(self._split), epoch))
        key = np.stack(np.broadcast_arrays(seeds.generate_state(1), indices), axis=-1)
        return {**super().batch(indices, epoch=epoch), "key": key.astype(np.uint32)}


@functools.lru_cache(maxsize=4)
def _read(
    dataset: str, task: str, files: Files, grey: bool, part: Literal["train", "test"]
) -> Columns:
    columns = read_images(dataset, part, files, task=task)
    return {**columns, "image": to_grey(columns["image"])} if grey else columns


@functools.lru_cache(maxsize=1)
def _read_digits() -> Columns:
    from sklearn.datasets import load_digits

    digits = load_digits()
    return {"image": digits.images.astype(np.uint8), "label": digits.target.astype(np.int32)}
