"""What is compiled once is kept on disk, so that later starts are faster."""

import os
from pathlib import Path

import jax


def keep_compiled() -> None:
    """Turns on JAX's persistent compilation cache, in ``~/.cache/s5jax``.

    ``XDG_CACHE_HOME`` replaces ``~/.cache``. A folder that is already set, for example by
    ``JAX_COMPILATION_CACHE_DIR``, stays, and if that is empty nothing is kept. Entries are named
    after program, versions, flags and the features of processor or accelerator, so machines that
    differ can share the folder. JAX executes what lies there: nobody else should write to it.
    """
    if jax.config.values["jax_compilation_cache_dir"] is None:
        folder = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "s5jax"
        jax.config.update("jax_compilation_cache_dir", str(folder))
