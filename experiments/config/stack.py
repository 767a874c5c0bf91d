"""The options that all models share, and the construction of a model."""

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
    ffn_activation: Literal["gelu", "geglu", "swiglu"] = "gelu"
    """Nonlinearity of feed-forward blocks; the gates geglu and swiglu have as many parameters."""
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

    @classmethod
    def own_options(cls) -> list[str]:
        """Returns the names of the options that are not those of the stack."""
        shared = [field.name for field in dataclasses.fields(ModelOptions)]
        return [field.name for field in dataclasses.fields(cls) if field.name not in shared]

    @property
    def continuous_time(self) -> bool:
        """Whether step lengths have a meaning."""
        return self.layer.continuous_time

    def layer_options(self, task: Task) -> dict[str, Any]:
        """Returns the arguments of the layer: all options except those of the stack."""
        del task
        return {name: getattr(self, name) for name in ("bidirectional", *self.own_options())}

    def layers_of(self, task: Task) -> dict[str, Any]:
        """Returns the arguments of the model that determine its layers."""
        return {"layer": self.layer, "layer_options": self.layer_options(task)}

    def build(
        self, task: Task, *, dtype: DTypeLike | None = None, remat: bool = False, rngs: nnx.Rngs
    ) -> nnx.Module:
        """Builds a new model for a task; ``dtype`` and ``remat`` as in s5jax."""
        if task.causal and self.bidirectional:
            raise ValueError(
                f"{type(self).__name__}: `bidirectional` must be False, as the task is causal; "
                "set --model.bidirectional=False."
            )
        if task.irregular and not self.continuous_time:
            raise ValueError(
                f"{type(self).__name__}: layers in discrete time do not accept the task's step "
                "lengths; append them to the inputs (pendulum and forecast: --data.gaps=append), "
                "or choose S4, S4D, S5, LinOSS or Hyena."
            )
        model, options = HEADS[task.head], self.head_options(task)
        return model(
            **self.layers_of(task),
            d_input=task.d_input,
            d_model=self.d_model,
            n_layers=self.n_layers,
            encoder="linear" if task.encoder == "linear" else self.token_encoder,
            embedding_std=self.embedding_std,
            final_norm=self.final_norm,
            ffn_every=self.ffn_every,
            ffn_activation=self.ffn_activation,
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
