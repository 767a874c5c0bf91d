"""The base class of all modules."""

import inspect
from typing import Any

from flax import nnx

from s5jax._promotion import default_promotion


class Module(nnx.Module):
    """A module whose constructor and public methods run under JAX's own rules of promotion."""

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        for name, method in list(vars(cls).items()):
            public = not name.startswith("_") or name in ("__init__", "__call__")
            if public and inspect.isfunction(method):
                setattr(cls, name, default_promotion(method))
