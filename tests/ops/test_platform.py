import jax
import pytest
from flax import nnx
from jax.sharding import AbstractDevice, AbstractMesh, AxisType, use_abstract_mesh

from s5jax import LRU, S5
from s5jax.ops import chunk_length, conv_algorithm, scan_algorithm, target_platform


def mesh_of(platform):
    """Of one device that is not here."""
    device = AbstractDevice(device_kind="any", num_cores=None, platform=platform)
    return AbstractMesh((1,), ("data",), (AxisType.Auto,), abstract_device=device)


@pytest.mark.parametrize(
    ("platform", "target"), [("cpu", "cpu"), ("gpu", "gpu"), ("cuda", "gpu"), ("tpu", "tpu")]
)
def test_a_mesh_decides(platform, target):
    with use_abstract_mesh(mesh_of(platform)):
        assert target_platform() == target
        seen = []
        jax.jit(lambda x: seen.append(target_platform()))(0.0)
    assert seen == [target]


def test_without_a_mesh_it_is_the_default_device(monkeypatch):
    with jax.default_device(jax.devices("cpu")[0]):
        monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
        assert target_platform() == "cpu"
    assert target_platform() == "gpu"
    with jax.default_device("cpu"):
        assert target_platform() == "cpu"


@pytest.mark.parametrize("layer", [S5, LRU])
def test_algorithms_of_shared_states(layer):
    automatic, named = (
        layer(4, 8, algorithm=algorithm, rngs=nnx.Rngs(0)) for algorithm in ("auto", "sequential")
    )
    assert automatic.algorithm_for(100) == "sequential"
    for platform in ("gpu", "tpu"):
        with use_abstract_mesh(mesh_of(platform)):
            assert automatic.algorithm_for(100) == "block"
            assert named.algorithm_for(100) == "sequential"
            assert scan_algorithm() == "associative"


def test_algorithms_of_convolutions():
    chosen = {}
    for platform in ("cpu", "gpu", "tpu"):
        with use_abstract_mesh(mesh_of(platform)):
            chosen[platform] = conv_algorithm("auto", 65_536, 64), conv_algorithm("auto", 100, 64)
    assert chosen == {
        "cpu": ("chunked", "fft"),
        "gpu": ("chunked", "fft"),
        "tpu": ("chunked", "chunked"),
    }


def test_algorithms_of_convolutions_on_a_gpu():
    with use_abstract_mesh(mesh_of("gpu")):
        assert conv_algorithm("auto", 1024, 64, batch=32) == "chunked"
        assert conv_algorithm("auto", 1024, 64, batch=31) == "fft"
        assert conv_algorithm("auto", 65_536, 64, bidirectional=True) == "chunked"
        assert conv_algorithm("auto", 65_536, 129) == "fft"


def test_lengths_of_chunks():
    assert chunk_length(1 << 20) == 64
    with use_abstract_mesh(mesh_of("gpu")):
        lengths = [chunk_length(L, 8) for L in (100, 4095, 4096, 16_383, 16_384)]
    assert lengths == [64, 64, 128, 128, 256]
