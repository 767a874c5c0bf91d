"""The base class of all modules."""

import inspect
from typing import Any, ClassVar

from flax import nnx

from s5jax._promotion import default_promotion
from s5jax.layers._explicit import compiler_splits
from s5jax.layers._tables import unlist_methods


class Module(nnx.Module):
    """A module whose constructor and public methods run under JAX's own rules of promotion.

    Calls and steps leave explicit axes of a mesh to the compiler, and are the only methods that
    `nnx.tabulate` lists.
    """

    has_time: ClassVar[bool] = True
    """Whether outputs have an axis of time."""

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        for name, method in list(vars(cls).items()):
            public = not name.startswith("_") or name in ("__init__", "__call__")
            if public and inspect.isfunction(method):
                if name in ("__call__", "step"):
                    method = compiler_splits(method, step=name == "step")
                setattr(cls, name, default_promotion(method))
        unlist_methods(cls)
