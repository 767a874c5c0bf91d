"""The models by name: their options, and how they are built."""

import dataclasses
from typing import Any, ClassVar, Literal

from flax import nnx
from jax.typing import DTypeLike

import s5jax
from experiments.errors import check_positive, check_share
from experiments.tasks import Head, Task

HEADS: dict[Head, type[s5jax.SequenceBackbone]] = {
    "classify": s5jax.SequenceClassifier,
    "match": s5jax.DocumentMatcher,
    "label": s5jax.SequenceLabeler,
    "language": s5jax.LanguageModel,
    "image_regression": s5jax.ImageRegressor,
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class ModelOptions:
    """Model: the residual stack that all models share."""

    name: ClassVar[str]
    layer: ClassVar[type[s5jax.SequenceLayer]]

    n_layers: int = 6
    """Residual blocks."""
    d_model: int = 128
    """Features of a block."""
    norm: Literal["batch", "layer", "scalar_layer"] = "batch"
    """Normalisation of a block; "scalar_layer" is DLR's, with one scale and shift for all."""
    prenorm: bool = True
    """Normalise before the layer (True) or after the residual (False)."""
    norm_momentum: float = 0.9
    """Share of the old running statistics that a step keeps, as flax counts it."""
    norm_epsilon: float = 1e-5
    """Added to the variance."""
    activation: Literal["full_glu", "half_glu1", "half_glu2", "gelu", "glu", "gelu_linear"] = (
        "half_glu1"
    )
    """Nonlinearity after the layer; "glu" is S4's, "gelu_linear" DLR's, the others S5's."""
    dropout: float = 0.0
    """Share of features dropped in training."""
    tie_dropout: Literal["all", "residual", "none"] = "all"
    """Which drops take a feature at all time steps at once: S5's, SGConv's last, or none."""
    layer_dropout: bool = False
    """Drop single entries of the layer's output, too, as the current S4 does."""
    final_norm: bool = False
    """Normalise once more after the last block."""
    pooling: Literal["mean", "last"] = "mean"
    """How the sequence becomes one vector."""
    bidirectional: bool = True
    """Read the sequence in both directions."""
    token_encoder: Literal["embedding", "one_hot"] = "embedding"
    """How tokens enter: S4's table, or S5's dense map of one-hot vectors."""
    embedding_std: float = 1.0
    """Standard deviation of the first embedding, as PyTorch has it."""
    mask_padding: bool = True
    """Leave padding out everywhere; if not, from pooling only, as the published S5."""
    ffn_every: int | None = None
    """After so many blocks comes a feed-forward block of four times the width; by default never."""
    embedding_dropout: float = 0.0
    """Share of entries dropped after the embedding and before the logits of a language model."""
    cutoffs: tuple[int, ...] = ()
    """Ranks of tokens at which a language model's vectors become four times shorter."""

    def __post_init__(self) -> None:
        sizes = {"n_layers": self.n_layers, "d_model": self.d_model}
        check_positive(self, **sizes, norm_epsilon=self.norm_epsilon)
        check_positive(self, embedding_std=self.embedding_std)
        check_share(self, dropout=self.dropout, norm_momentum=self.norm_momentum)
        check_share(self, embedding_dropout=self.embedding_dropout)

    def layer_options(self, task: Task) -> dict[str, Any]:
        """The arguments of the layer: all options that are not those of the stack."""
        del task
        shared = {field.name for field in dataclasses.fields(ModelOptions)} - {"bidirectional"}
        return {
            field.name: getattr(self, field.name)
            for field in dataclasses.fields(self)
            if field.name not in shared
        }

    def build(
        self, task: Task, *, dtype: DTypeLike | None = None, remat: bool = False, rngs: nnx.Rngs
    ) -> nnx.Module:
        """The model for a task, with fresh parameters; ``dtype`` and ``remat`` as in s5jax."""
        if task.causal and self.bidirectional:
            raise ValueError(
                f"{type(self).__name__}: `bidirectional` must be False, as the task forbids to "
                "look ahead; set --model.bidirectional=False."
            )
        if task.irregular and not self.layer.continuous_time:
            raise ValueError(
                f"{type(self).__name__}: layers in discrete time take no step lengths, which the "
                "task gives; append them to the inputs (for pendulum --data.gaps=append), or "
                "choose S4, S4D or S5."
            )
        model, options = HEADS[task.head], self.head_options(task)
        return model(
            self.layer,
            d_input=task.d_input,
            d_model=self.d_model,
            n_layers=self.n_layers,
            layer_options=self.layer_options(task),
            encoder="linear" if task.encoder == "linear" else self.token_encoder,
            embedding_std=self.embedding_std,
            norm=self.norm,
            prenorm=self.prenorm,
            norm_momentum=self.norm_momentum,
            norm_epsilon=self.norm_epsilon,
            activation=self.activation,
            dropout=self.dropout,
            tie_dropout={"all": True, "residual": "residual", "none": False}[self.tie_dropout],
            layer_dropout=self.layer_dropout,
            final_norm=self.final_norm,
            ffn_every=self.ffn_every,
            remat=remat,
            dtype=dtype,
            rngs=rngs,
            **options,
        )

    def head_options(self, task: Task) -> dict[str, Any]:
        """The arguments of the head that the task asks for."""
        if task.head == "language":
            return {"embedding_dropout": self.embedding_dropout, "cutoffs": self.cutoffs}
        if self.embedding_dropout or self.cutoffs:
            raise ValueError(
                f"{type(self).__name__}: `embedding_dropout` and `cutoffs` are options of language "
                f"models; got {self.embedding_dropout} and {self.cutoffs} for another task."
            )
        if task.head in ("classify", "match"):
            pool = {"pooling": self.pooling, "mask_padding": self.mask_padding}
            return {"d_output": task.d_output, **pool}
        return {"d_output": task.d_output}


@dataclasses.dataclass(frozen=True, kw_only=True)
class StepSizeOptions(ModelOptions):
    """Model: one whose layers have learnt step sizes."""

    dt_min: float = 1e-3
    """Smallest initial step size [steps of unit length]."""
    dt_max: float = 0.1
    """Largest initial step size [steps of unit length]."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class S5Options(StepSizeOptions):
    """Model: S5, a diagonal multi-input state space read by a parallel scan."""

    name = "s5"
    layer = s5jax.S5

    d_state: int = 256
    """State size P, before conjugate symmetry halves what is stored."""
    n_blocks: int = 16
    """HiPPO blocks J that the state is initialised from."""
    conj_sym: bool = True
    """Keep one of each conjugate pair of eigenvalues."""
    clip_eigs: bool = False
    """Keep the eigenvalues' real parts below -1e-4."""
    discretization: Literal["zoh", "bilinear"] = "zoh"
    """From continuous to discrete time."""
    C_init: Literal["trunc_standard_normal", "lecun_normal", "complex_normal"] = "complex_normal"
    """Initialisation of the output matrix."""
    backend: Literal["auto", "sequential", "associative", "chunked", "pallas"] = "auto"
    """Algorithm of the scan; "pallas" fuses it with both products, on one GPU."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class S4Options(StepSizeOptions):
    """Model: S4, a diagonal plus low-rank state space for each feature, run as a convolution."""

    name = "s4"
    layer = s5jax.S4

    d_state: int = 64
    """States a feature, conjugates included."""
    n_ssm: int | None = None
    """Number of different state matrices, shared in turn; without it, one a feature."""
    init: Literal["legs", "legt", "fourier"] = "legs"
    """HiPPO measure."""
    dt_transform: Literal["exp", "softplus"] = "softplus"
    """From the stored step size to the step size."""
    conv: Literal["auto", "fft", "chunked"] = "auto"
    """Plain sequences by transforms, by chunks that hand a state on, or what is faster."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class S4DOptions(StepSizeOptions):
    """Model: S4D, a diagonal state space for each feature, run as a convolution."""

    name = "s4d"
    layer = s5jax.S4D

    d_state: int = 64
    """States a feature, conjugates included."""
    n_ssm: int | None = None
    """Number of different state matrices, shared in turn; without it, one a feature."""
    init: Literal["legs", "lin", "inv"] = "legs"
    """First eigenvalues."""
    discretization: Literal["zoh", "bilinear"] = "zoh"
    """From continuous to discrete time."""
    dt_transform: Literal["exp", "softplus"] = "exp"
    """From the stored step size to the step size."""
    conv: Literal["auto", "fft", "chunked"] = "auto"
    """Plain sequences by transforms, by chunks that hand a state on, or what is faster."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class DLROptions(StepSizeOptions):
    """Model: DLR, a diagonal linear recurrence whose eigenvalues all features share; also DSS."""

    name = "dlr"
    layer = s5jax.DLR

    d_state: int = 1024
    """Complex states a feature."""
    version: Literal["dlr", "dss_exp", "dss_softmax"] = "dlr"
    """Parameterisation of the kernel."""
    kernel_to_real: Literal["real", "imag", "sum", "prod"] = "real"
    """From the complex kernel to the real one."""
    l_kernel: int | None = None
    """Lags after which the kernel is cut off; without it, never."""
    dt_min: float = 1e-4
    """Smallest initial step size, twice the smallest decay rate of DLR [steps of unit length]."""
    conv: Literal["auto", "fft", "chunked", "scan"] = "auto"
    """Plain sequences by transforms, by chunks that hand a state on, or by recurrence."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class SGConvOptions(ModelOptions):
    """Model: SGConv, a convolution whose kernel is short ones, stretched and put in a row."""

    name = "sgconv"
    layer = s5jax.SGConv

    kernel_dim: int = 64
    """Numbers of each sub-kernel."""
    n_scales: int | None = None
    """Number of sub-kernels; without it, as many as the task's length takes."""
    init_scale: int = 0
    """Binary logarithm of the stretch of the first sub-kernel."""
    init: Literal["random", "cosine"] = "random"
    """First sub-kernels."""
    decay: Literal["scale", "power", "learnable"] = "scale"
    """What decays, and whether its rate is trained."""
    decay_min: float = 2.0
    """Smallest rate of decay."""
    decay_max: float = 2.0
    """Largest rate of decay."""

    def layer_options(self, task: Task) -> dict[str, Any]:
        """Those of the layer, whose kernel spans the task's longest sequence."""
        return {**super().layer_options(task), "l_max": task.length}


@dataclasses.dataclass(frozen=True, kw_only=True)
class HOPEOptions(StepSizeOptions):
    """Model: HOPE, for each feature a transfer function in powers of one all-pass section."""

    name = "hope"
    layer = s5jax.HOPE

    d_state: int = 128
    """Markov parameters a feature and direction."""
    form: Literal["causal", "circular", "mirrored"] = "causal"
    """This library's form, or one of the published; mirrored needs --model.activation=glu."""
    decay_exp: float = 0.0
    """Exponent of the decay of the Markov parameters."""
    scale_factor: float = 2.0
    """Divisor of the first Markov parameters."""
    dt_transform: Literal["exp", "softplus"] = "exp"
    """From the stored step size to the step size."""
    conv: Literal["auto", "fft", "chunked"] = "auto"
    """Plain sequences by transforms, by chunks that hand a state on, or what is faster."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class LRUOptions(ModelOptions):
    """Model: LRU, a diagonal multi-input recurrence in discrete time."""

    name = "lru"
    layer = s5jax.LRU

    d_state: int = 256
    """Complex states of the layer."""
    r_min: float = 0.9
    """Inner radius of the ring of first eigenvalues."""
    r_max: float = 0.999
    """Outer radius of the ring of first eigenvalues."""
    max_phase: float = 6.28
    """Largest first phase [radians a step]."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class AttentionOptions(ModelOptions):
    """Model: multi-head attention with rotary positions, for comparison."""

    name = "attention"
    layer = s5jax.Attention

    n_heads: int = 4
    """Heads; each has d_model / n_heads features."""
    window: int | None = None
    """Steps seen, back and, if bidirectional, ahead; without it, the whole sequence."""

    def layer_options(self, task: Task) -> dict[str, Any]:
        """Those of the layer, which counts its window from the task's longest sequence."""
        options = super().layer_options(task)
        window = options.pop("window")
        return {**options, "l_max": task.length if window is None else window}


@dataclasses.dataclass(frozen=True, kw_only=True)
class GRUOptions(ModelOptions):
    """Model: gated recurrent units, for comparison."""

    name = "gru"
    layer = s5jax.GRU

    d_state: int = 128
    """Units of a direction."""


MODELS: dict[str, type[ModelOptions]] = {
    options.name: options
    for options in (
        S5Options,
        S4Options,
        S4DOptions,
        DLROptions,
        SGConvOptions,
        HOPEOptions,
        LRUOptions,
        AttentionOptions,
        GRUOptions,
    )
}
