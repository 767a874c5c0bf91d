"""Whole models that map sequences of images to distributions of numbers."""

import functools
import math
from collections.abc import Sequence
from typing import Any, ClassVar, Unpack

import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Inexact

from s5jax._errors import check_choice, check_positive
from s5jax._promotion import with_axes
from s5jax.layers._dense import output_map
from s5jax.models._arguments import BackboneArguments, Encoder, Layers
from s5jax.models._model import StepwiseModel
from s5jax.ops import pooled_conv

_CHANNELS = 12
_STRIDE = 8


class ImageEncoder(nnx.Module):
    """Two convolutions and two dense layers: an image and further numbers to H features.

    Args:
        d_input: number of pixels, and of numbers after them.
        d_model: number of features H.
        image_shape: height and width of the images.
        embedding_std: unused.
        dtype: dtype of computations.
        param_dtype: dtype of the parameters.
        rngs: source of the key ``params``.
    """

    kind: ClassVar[Encoder] = "linear"

    def __init__(
        self,
        d_input: int,
        d_model: int,
        *,
        image_shape: tuple[int, int],
        embedding_std: float | None,
        dtype: DTypeLike | None,
        param_dtype: DTypeLike,
        rngs: nnx.Rngs,
    ) -> None:
        del embedding_std
        n_pixels = math.prod(image_shape)
        if any(size % _STRIDE for size in image_shape) or d_input < n_pixels:
            raise ValueError(
                f"ImageRegressor: `image_shape` must be multiples of {_STRIDE} with at most "
                f"`d_input` pixels; got {image_shape} with d_input={d_input}."
            )
        self.image_shape = image_shape
        options: dict[str, Any] = {"dtype": dtype, "param_dtype": param_dtype, "rngs": rngs}
        self.conv1 = nnx.Conv(1, _CHANNELS, (5, 5), padding=2, **options)
        self.conv2 = nnx.Conv(_CHANNELS, _CHANNELS, (3, 3), strides=2, padding=1, **options)
        height, width = (size // _STRIDE for size in image_shape)
        self.dense1 = nnx.Linear(height * width * _CHANNELS, d_model, **options)
        self.dense2 = nnx.Linear(d_model + d_input - n_pixels, d_model, **options)

    def __call__(
        self, u: Inexact[Array, "*batch d_input"], rngs: nnx.Rngs | None = None
    ) -> Inexact[Array, "*batch H"]:
        """Maps pixels, row by row, and the numbers after them."""
        del rngs
        height, width = self.image_shape
        pixels, further = jnp.split(u.reshape(-1, u.shape[-1]), [height * width], axis=-1)
        x = pixels.reshape(-1, height, width, 1)
        convs: tuple[Any, Any] = self.conv1, self.conv2
        for conv in convs:
            arrays = x, conv.kernel[...], conv.bias[...]
            x, W, b = conv.promote_dtype(arrays, dtype=conv.dtype)
            x = pooled_conv(x, W, stride=conv.strides, padding=conv.padding)
            x = nnx.relu(x + with_axes(b, x))
        x = nnx.relu(self.dense1(x.reshape(x.shape[0], math.prod(x.shape[1:]))))
        x = self.dense2(jnp.concatenate([x, further.astype(x.dtype)], axis=-1))
        return x.reshape(*u.shape[:-1], x.shape[-1])


class ImageRegressor(StepwiseModel):
    r"""Sequences of grey images in, mean and variance of each target at each step out.

    .. math:: \mu_t = W_2 \tanh(W_1 x_t + b_1) + b_2, \quad
        \sigma_t^2 = f(W_4 \tanh(W_3 x_t + b_3) + b_4), \quad
        x = \operatorname{backbone}(\operatorname{cnn}(u))

    with :math:`f(v) = e^v` below zero and :math:`1 + v` above.

    An input step holds the pixels of an image, row by row; numbers after these, such as the time
    since the step before, join the features that the convolutions find. The images pass two
    convolutions (12 channels of 5 x 5, then of 3 x 3 with stride 2), each followed by a ReLU and
    max pooling over 2 x 2, and two dense layers of H features with a ReLU between them. This is the
    published model of irregularly sampled pendulums, with H = 30.

    Args:
        layer: class of the layers, for example `S5`, or a list of them as in `SequenceBackbone`.
        d_output: number of targets; the outputs are all means, then all variances.
        image_shape: height and width of the images, multiples of 8.
        rngs: source of the key ``params``.
        **backbone: the other arguments of `SequenceBackbone`; ``d_input`` is the number of pixels,
            and of numbers after them, and ``encoder`` can only be ``"linear"``.

    Raises:
        TypeError: for an argument that does not exist.
        ValueError: for sizes that are not positive or do not fit, or an unknown option.

    Example:
        >>> import jax.numpy as jnp
        >>> from flax import nnx
        >>> from s5jax import S5, ImageRegressor
        >>> model = ImageRegressor(
        ...     S5, d_input=24 * 24, d_output=2, d_model=30, n_layers=2,
        ...     layer_options={"d_state": 16, "n_blocks": 8}, norm="layer", rngs=nnx.Rngs(0),
        ... )
        >>> model(jnp.ones((3, 50, 576)), dt=jnp.ones((3, 50))).shape
        (3, 50, 4)

    References:
        Smith et al., "Simplified State Space Layers" (S5), 2023, https://arxiv.org/abs/2208.04933,
        section 6.3.
        Schirmer et al., "Continuous Recurrent Units" (CRU), 2022, https://arxiv.org/abs/2111.11344,
        for the encoder and the heads.
    """

    def __init__(
        self,
        layer: Layers,
        *,
        d_output: int,
        image_shape: Sequence[int] = (24, 24),
        rngs: nnx.Rngs,
        **backbone: Unpack[BackboneArguments],
    ) -> None:
        height, width = image_shape
        height, width = check_positive("ImageRegressor", height=height, width=width)
        (self.d_output,) = check_positive("ImageRegressor", d_output=d_output)
        self.image_shape = height, width
        check_choice("ImageRegressor", "encoder", backbone.get("encoder", "linear"), ["linear"])
        backbone["encoder"] = functools.partial(ImageEncoder, image_shape=self.image_shape)
        super().__init__(layer, rngs=rngs, **backbone)
        H, options = self.d_model, self.dtypes
        self.mean_hidden = nnx.Linear(H, H, rngs=rngs, **options)
        self.mean_decode = output_map(H, self.d_output, rngs=rngs, **options)
        self.variance_hidden = nnx.Linear(H, H, rngs=rngs, **options)
        self.variance_decode = output_map(H, self.d_output, rngs=rngs, **options)

    def head(self, x: Inexact[Array, "*batch H"]) -> Inexact[Array, "*batch {2*self.d_output}"]:
        """Returns means and variances of a step."""
        mean = self.mean_decode(jnp.tanh(self.mean_hidden(x)))
        raw = self.variance_decode(jnp.tanh(self.variance_hidden(x)))
        variance = jnp.where(raw < 0, jnp.exp(jnp.minimum(raw, 0)), raw + 1)
        return jnp.concatenate([mean, variance], axis=-1)
