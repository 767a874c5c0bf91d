"""The models by name, and the options of their layers."""

import ast
import dataclasses
import typing
from typing import Any, Literal

import s5jax
from experiments.config.stack import ModelOptions as ModelOptions
from experiments.config.strict import convert
from experiments.errors import choose
from experiments.tasks import Task


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
class HyenaOptions(ModelOptions):
    """Model: Hyena, products of projections around S5, for recall by content."""

    name = "hyena"
    layer = s5jax.Hyena

    d_state: int = 64
    """States of S5, conjugates included."""
    n_blocks: int = 1
    """Blocks that initialise the state matrix of S5."""
    filter_length: int = 3
    """Steps of the short filters."""
    dt_min: float = 1e-3
    """Smallest initial step size of S5."""
    dt_max: float = 1e-1
    """Largest initial step size of S5."""


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


LAYERS: dict[str, type[ModelOptions]] = {
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
        HyenaOptions,
        AttentionOptions,
        GRUOptions,
    )
}
"""Models of one kind of layer."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class HybridOptions(ModelOptions):
    """Model: a stack of different layers, by default two of S5 for one of local attention."""

    name = "hybrid"

    layers: tuple[str, ...] = ("s5", "s5", "attention:window=1024")
    """Layers that the blocks repeat; options follow a name, as in s5:d_state=64,n_blocks=4."""

    def __post_init__(self) -> None:
        super().__post_init__()
        n = len(self.layers)
        if not self.parts or self.n_layers % n:
            raise ValueError(
                "HybridOptions: `n_layers` must be a multiple of the number of `layers`, which the "
                f"blocks repeat; got {self.n_layers} blocks for {n} layers."
            )

    @property
    def parts(self) -> list[ModelOptions]:
        """The options of each of the layers."""
        return [read_layer(text, bidirectional=self.bidirectional) for text in self.layers]

    @property
    def continuous_time(self) -> bool:
        """Whether step lengths have a meaning, to all layers."""
        return all(part.continuous_time for part in self.parts)

    def layers_of(self, task: Task) -> dict[str, Any]:
        """Returns the layers and their options."""
        return {"layer": [(part.layer, part.layer_options(task)) for part in self.parts]}


def read_layer(text: str, **stack: Any) -> ModelOptions:
    """Reads a layer and its options.

    Args:
        text: a name in ``LAYERS``, and its options, as in ``s5:d_state=64,n_blocks=4``.
        **stack: options of the stack.

    Raises:
        UsageError: if there is no such layer or option, or a value is of another type.

    Example:
        >>> read_layer("attention:n_heads=2,window=128").window
        128
    """
    name, _, settings = text.partition(":")
    options = choose("layer", name, LAYERS)
    hints = {option: typing.get_type_hints(options)[option] for option in options.own_options()}
    values = {}
    for setting in filter(None, settings.split(",")):
        option, _, value = setting.partition("=")
        kind = choose(f"option of {name}", option, hints)
        values[option] = convert(kind, _literal(value), f"{name}:{option}")
    return options(**values, **stack)


def _literal(text: str) -> Any:
    """The value that a text stands for in Python, or else the text."""
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text


MODELS: dict[str, type[ModelOptions]] = {**LAYERS, HybridOptions.name: HybridOptions}
"""All models."""
