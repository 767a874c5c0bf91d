"""The models by name: their options and their construction."""

import dataclasses
from typing import Any, ClassVar, Literal

from flax import nnx
from jax.typing import DTypeLike

import s5jax
from experiments.errors import check_positive, check_share
from experiments.tasks import Head, Task
from s5jax.models import BlockOptions

HEADS: dict[Head, type[s5jax.models.SequenceModel]] = {
    "classify": s5jax.SequenceClassifier,
    "match": s5jax.DocumentMatcher,
    "label": s5jax.SequenceLabeler,
    "language": s5jax.LanguageModel,
    "image_regression": s5jax.ImageRegressor,
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class ModelOptions(BlockOptions):
    """Model: the residual stack, common to all models."""

    name: ClassVar[str]
    layer: ClassVar[type[s5jax.SequenceLayer]]

    n_layers: int = 6
    """Residual blocks."""
    d_model: int = 128
    """Features of a block."""
    final_norm: bool = False
    """Normalise once more after the last block."""
    pooling: Literal["mean", "last"] = "mean"
    """Reduction of a sequence to one vector."""
    bidirectional: bool = True
    """Read the sequence in both directions."""
    token_encoder: Literal["embedding", "one_hot"] = "embedding"
    """Encoding of tokens: S4's table, or S5's dense map of one-hot vectors."""
    embedding_std: float = 1.0
    """Standard deviation of the initial embedding; the default is PyTorch's."""
    mask_padding: bool = True
    """Exclude padding everywhere; otherwise from pooling only, as the published S5."""
    ffn_every: int | None = None
    """A feed-forward block of four times the width follows every n-th block; by default none."""
    embedding_dropout: float = 0.0
    """Share of entries dropped after the embedding and before the logits of a language model."""
    cutoffs: tuple[int, ...] = ()
    """Token ranks at each of which a language model's vectors become four times shorter."""

    def __post_init__(self) -> None:
        super().__post_init__()
        sizes = {"n_layers": self.n_layers, "d_model": self.d_model}
        check_positive(self, **sizes, norm_epsilon=self.norm_epsilon)
        check_positive(self, embedding_std=self.embedding_std)
        check_share(
            self, norm_momentum=self.norm_momentum, embedding_dropout=self.embedding_dropout
        )

    def layer_options(self, task: Task) -> dict[str, Any]:
        """Returns the arguments of the layer: all options except those of the stack."""
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
        """Builds a new model for a task; ``dtype`` and ``remat`` as in s5jax."""
        if task.causal and self.bidirectional:
            raise ValueError(
                f"{type(self).__name__}: `bidirectional` must be False, as the task is causal; "
                "set --model.bidirectional=False."
            )
        if task.irregular and not self.layer.continuous_time:
            raise ValueError(
                f"{type(self).__name__}: layers in discrete time do not accept the task's step "
                "lengths; append them to the inputs (pendulum and forecast: --data.gaps=append), "
                "or choose S4, S4D, S5 or LinOSS."
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
            final_norm=self.final_norm,
            ffn_every=self.ffn_every,
            remat=remat,
            dtype=dtype,
            rngs=rngs,
            **options,
            **{field.name: getattr(self, field.name) for field in dataclasses.fields(BlockOptions)},
        )

    def head_options(self, task: Task) -> dict[str, Any]:
        """Returns the arguments of the task's head."""
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
    """Model: layers with learnt step sizes."""

    dt_min: float = 1e-3
    """Smallest initial step size [steps of unit length]."""
    dt_max: float = 0.1
    """Largest initial step size [steps of unit length]."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class S5Options(StepSizeOptions):
    """Model: S5, a diagonal multi-input state space, computed by a parallel scan."""

    name = "s5"
    layer = s5jax.S5

    d_state: int = 256
    """State size P; conjugate symmetry halves the number of stored states."""
    n_blocks: int = 16
    """Number J of blocks in the initial state matrix."""
    init: Literal["hippo", "random"] = "hippo"
    """Initial blocks: HiPPO-N, or random ones."""
    conj_sym: bool = True
    """Store one of each conjugate pair of eigenvalues."""
    clip_eigs: bool = False
    """Limit the eigenvalues' real parts to at most -1e-4."""
    discretization: Literal["zoh", "bilinear"] = "zoh"
    """Method of discretization."""
    C_init: Literal["trunc_standard_normal", "lecun_normal", "complex_normal"] = "complex_normal"
    """Initialisation of the output matrix."""
    algorithm: Literal["auto", "block", "sequential", "associative", "chunked", "pallas"] = "auto"
    """Algorithm of the recurrence; "pallas" is fused kernels, on one GPU."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class S4Options(StepSizeOptions):
    """Model: S4, a diagonal plus low-rank state space per feature, computed as a convolution."""

    name = "s4"
    layer = s5jax.S4

    d_state: int = 64
    """States per feature, including conjugates."""
    n_ssm: int | None = None
    """Number of state matrices, which features share cyclically; by default one per feature."""
    init: Literal["legs", "legt", "fourier"] = "legs"
    """HiPPO measure."""
    dt_transform: Literal["exp", "softplus"] = "softplus"
    """Map from the stored parameter to the step size."""
    algorithm: Literal["auto", "fft", "chunked"] = "auto"
    """Algorithm for plain sequences: FFT, chunks that pass a state on, or the faster one."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class S4DOptions(StepSizeOptions):
    """Model: S4D, a diagonal state space per feature, computed as a convolution."""

    name = "s4d"
    layer = s5jax.S4D

    d_state: int = 64
    """States per feature, including conjugates."""
    n_ssm: int | None = None
    """Number of state matrices, which features share cyclically; by default one per feature."""
    init: Literal["legs", "lin", "inv", "inv2", "quad", "real", "random", "dfout"] = "legs"
    """Initial eigenvalues."""
    discretization: Literal["zoh", "bilinear"] = "zoh"
    """Method of discretization."""
    dt_transform: Literal["exp", "softplus"] = "exp"
    """Map from the stored parameter to the step size."""
    algorithm: Literal["auto", "fft", "chunked"] = "auto"
    """Algorithm for plain sequences: FFT, chunks that pass a state on, or the faster one."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class DLROptions(StepSizeOptions):
    """Model: DLR, a diagonal linear recurrence with eigenvalues common to all features; or DSS."""

    name = "dlr"
    layer = s5jax.DLR

    d_state: int = 1024
    """Complex states per feature."""
    version: Literal["dlr", "dss_exp", "dss_softmax"] = "dlr"
    """Parameterisation of the kernel."""
    kernel_to_real: Literal["real", "imag", "sum", "prod"] = "real"
    """Map from the complex kernel to the real kernel."""
    l_kernel: int | None = None
    """Length of the kernel; by default it is not truncated."""
    dt_min: float = 1e-4
    """Smallest initial step size, twice the smallest decay rate of DLR [steps of unit length]."""
    algorithm: Literal["auto", "fft", "chunked", "scan"] = "auto"
    """Algorithm for plain sequences: FFT, chunks that pass a state on, or recurrence."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class SGConvOptions(ModelOptions):
    """Model: SGConv, a convolution with a concatenation of stretched sub-kernels."""

    name = "sgconv"
    layer = s5jax.SGConv

    kernel_dim: int = 64
    """Parameters of each sub-kernel."""
    n_scales: int | None = None
    """Number of sub-kernels; by default as many as the task's length requires."""
    init_scale: int = 0
    """Binary logarithm of the stretch of the first sub-kernel."""
    init: Literal["random", "cosine"] = "random"
    """Initial sub-kernels."""
    decay: Literal["scale", "power", "learnable"] = "scale"
    """Form of the decay, and whether its rate is trained."""
    decay_min: float = 2.0
    """Smallest rate of decay."""
    decay_max: float = 2.0
    """Largest rate of decay."""

    def layer_options(self, task: Task) -> dict[str, Any]:
        """Adds the length of the kernel: the task's longest sequence."""
        return {**super().layer_options(task), "l_max": task.length}


@dataclasses.dataclass(frozen=True, kw_only=True)
class HOPEOptions(StepSizeOptions):
    """Model: HOPE, a transfer function per feature in powers of one all-pass section."""

    name = "hope"
    layer = s5jax.HOPE

    d_state: int = 128
    """Markov parameters per feature and direction."""
    form: Literal["causal", "circular", "mirrored"] = "causal"
    """Form: this library's, or a published one; mirrored needs --model.activation=glu."""
    decay_exp: float = 0.0
    """Exponent of the decay of the Markov parameters."""
    scale_factor: float = 2.0
    """Divisor of the initial Markov parameters."""
    dt_transform: Literal["exp", "softplus"] = "exp"
    """Map from the stored parameter to the step size."""
    algorithm: Literal["auto", "fft", "chunked"] = "auto"
    """Algorithm for plain sequences: FFT, chunks that pass a state on, or the faster one."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class LRUOptions(ModelOptions):
    """Model: LRU, a diagonal multi-input recurrence in discrete time."""

    name = "lru"
    layer = s5jax.LRU

    d_state: int = 256
    """Complex states of the layer."""
    r_min: float = 0.9
    """Inner radius of the ring of initial eigenvalues."""
    r_max: float = 0.999
    """Outer radius of the ring of initial eigenvalues."""
    max_phase: float = 6.28
    """Largest initial phase [radians per step]."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class LinOSSOptions(ModelOptions):
    """Model: LinOSS, forced harmonic oscillators that all features share."""

    name = "linoss"
    layer = s5jax.LinOSS

    d_state: int = 64
    """Frequencies of the layer, each with two oscillators."""
    discretization: Literal["im", "imex"] = "im"
    """Time integration: implicit, which forgets, or symplectic, which conserves energy."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class AttentionOptions(ModelOptions):
    """Model: multi-head attention with rotary positions, for comparison."""

    name = "attention"
    layer = s5jax.Attention

    n_heads: int = 4
    """Number of heads; each has d_model / n_heads features."""
    window: int | None = None
    """Steps visible back and, if bidirectional, ahead; by default the whole sequence."""

    def layer_options(self, task: Task) -> dict[str, Any]:
        """Adds the window, by default the task's longest sequence."""
        options = super().layer_options(task)
        window = options.pop("window")
        return {**options, "l_max": task.length if window is None else window}


@dataclasses.dataclass(frozen=True, kw_only=True)
class GRUOptions(ModelOptions):
    """Model: gated recurrent units, for comparison."""

    name = "gru"
    layer = s5jax.GRU

    d_state: int = 128
    """Units per direction."""


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
        LinOSSOptions,
        AttentionOptions,
        GRUOptions,
    )
}
