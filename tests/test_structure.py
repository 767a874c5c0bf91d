"""Which package may import which, and what an import must not do."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
OPS = {"jax", "numpy", "jaxtyping", "s5jax._errors", "s5jax._promotion", "s5jax.ops", "s5jax.init"}
LAYERS = OPS | {"flax", "s5jax.layers"}
MODELS = LAYERS | {"safetensors", "s5jax.models"}
ALLOWED = {
    "s5jax/ops": OPS,
    "s5jax/init": OPS,
    "s5jax/layers": LAYERS,
    "s5jax/models": MODELS | {"s5jax"},
    "s5jax/interop": MODELS | {"s5jax.interop"},
}


def imports(path: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names |= {node.module} if node.module else set()
    return {n for n in names if n.split(".")[0] not in sys.stdlib_module_names}


@pytest.mark.parametrize("folder", ALLOWED)
def test_import_direction(folder):
    for path in (ROOT / folder).rglob("*.py"):
        for name in imports(path):
            parents = {name.rsplit(".", i)[0] for i in range(name.count(".") + 1)}
            assert parents & ALLOWED[folder], f"{path.relative_to(ROOT)} imports {name}"


def test_experiments_use_public_names_only():
    for path in (ROOT / "experiments").rglob("*.py"):
        for name in imports(path):
            private = name.startswith("s5jax") and any(p.startswith("_") for p in name.split("."))
            assert not private, f"{path.relative_to(ROOT)} imports {name}"
    for path in (ROOT / "s5jax").rglob("*.py"):
        assert not any(n.split(".")[0] == "experiments" for n in imports(path)), path


def test_import_is_light():
    """No device is touched and no heavy library loaded."""
    code = (
        "import sys, jax, s5jax\n"
        "heavy = {'tensorflow', 'torch', 'matplotlib', 'grain', 'numba', 'tensorflow_datasets'}\n"
        "heavy |= {'pyarrow', 'soundfile'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)\n"
        "assert not jax._src.xla_bridge._backends, 'a device was initialised'\n"
        "assert not jax.config.jax_enable_x64\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)
