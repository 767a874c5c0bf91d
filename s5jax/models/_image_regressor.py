"""Whole models that turn sequences of images into distributions of numbers."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Inexact

from s5jax._errors import check_choice, check_positive
from s5jax.layers._base import SequenceLayer
from s5jax.layers._dense import output_map
from s5jax.models._labeler import StepwiseModel
from s5jax.ops import pooled_conv

_CHANNELS = 12
_STRIDE = 8


class ImageEncoder(nnx.Module):
    """Two convolutions and two dense layers: an image and further numbers to H features."""

    def __init__(
        self,
        image_shape: tuple[int, int],
        n_further: int,
        d_model: int,
        *,
        dtype: DTypeLike | None,
        param_dtype: DTypeLike,
        rngs: nnx.Rngs,
    ) -> None:
        self.image_shape = image_shape
        options: dict[str, Any] = {"dtype": dtype, "param_dtype": param_dtype, "rngs": rngs}
        self.conv1 = nnx.Conv(1, _CHANNELS, (5, 5), padding=2, **options)
        self.conv2 = nnx.Conv(_CHANNELS, _CHANNELS, (3, 3), strides=2, padding=1, **options)
        height, width = (size // _STRIDE for size in image_shape)
        self.dense1 = nnx.Linear(height * width * _CHANNELS, d_model, **options)
        self.dense2 = nnx.Linear(d_model + n_further, d_model, **options)

    def __call__(self, u: Inexact[Array, "*batch d_input"]) -> Inexact[Array, "*batch H"]:
        """Maps pixels, row by row, and what follows them."""
        height, width = self.image_shape
        pixels, further = jnp.split(u.reshape(-1, u.shape[-1]), [height * width], axis=-1)
        x = pixels.reshape(-1, height, width, 1)
        convs: tuple[Any, Any] = self.conv1, self.conv2
        for conv in convs:
            arrays = x, conv.kernel[...], conv.bias[...]
            x, W, b = conv.promote_dtype(arrays, dtype=conv.dtype)
            x = pooled_conv(x, W, stride=conv.strides, padding=conv.padding)
            x = nnx.relu(x + b)
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
        layer: class of the layers, for example `S5`.
        d_output: number of targets; the outputs are all means, then all variances.
        image_shape: height and width of the images, multiples of 8.
        rngs: source of the key ``params``.
        **backbone: the other arguments of `SequenceBackbone`; ``d_input`` is the number of pixels,
            and of numbers after them, and ``encoder`` can only be ``"linear"``.

    Raises:
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
        Smith, Warrington and Linderman, "Simplified State Space Layers for Sequence Modeling",
        2023, https://arxiv.org/abs/2208.04933, section 6.3; its encoder and heads are those of
        Schirmer et al., "Modeling Irregular Time Series with Continuous Recurrent Units", 2022,
        https://arxiv.org/abs/2111.11344.
    """

    def __init__(
        self,
        layer: Callable[..., SequenceLayer],
        *,
        d_output: int,
        image_shape: Sequence[int] = (24, 24),
        rngs: nnx.Rngs,
        **backbone: Any,
    ) -> None:
        height, width = image_shape
        height, width = check_positive("ImageRegressor", height=height, width=width)
        self.image_shape = height, width
        super().__init__(layer, rngs=rngs, **backbone)
        check_choice("ImageRegressor", "encoder", self.encoder, ["linear"])
        (d_output,) = check_positive("ImageRegressor", d_output=d_output)
        self.d_output = d_output
        H = self.d_model
        options: dict[str, Any] = {"dtype": self.dtype, "param_dtype": self.param_dtype}
        self.mean_hidden = nnx.Linear(H, H, rngs=rngs, **options)
        self.mean_decode = output_map(H, d_output, rngs=rngs, **options)
        self.variance_hidden = nnx.Linear(H, H, rngs=rngs, **options)
        self.variance_decode = output_map(H, d_output, rngs=rngs, **options)

    def head(self, x: Inexact[Array, "*batch H"]) -> Inexact[Array, "*batch 2*d_output"]:
        """Means and variances of a step."""
        mean = self.mean_decode(jnp.tanh(self.mean_hidden(x)))
        raw = self.variance_decode(jnp.tanh(self.variance_hidden(x)))
        variance = jnp.where(raw < 0, jnp.exp(jnp.minimum(raw, 0)), raw + 1)
        return jnp.concatenate([mean, variance], axis=-1)

    def _make_encoder(self, rngs: nnx.Rngs) -> ImageEncoder:
        dtypes: dict[str, Any] = {"dtype": self.dtype, "param_dtype": self.param_dtype}
        height, width = self.image_shape
        if height % _STRIDE or width % _STRIDE or self.d_input < height * width:
            raise ValueError(
                f"ImageRegressor: `image_shape` must be multiples of {_STRIDE} with at most "
                f"`d_input` pixels; got {self.image_shape} with d_input={self.d_input}."
            )
        n_further = self.d_input - height * width
        return ImageEncoder(self.image_shape, n_further, self.d_model, rngs=rngs, **dtypes)
