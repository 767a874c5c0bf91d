import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import assert_close, normal, tiers
from jax.sharding import AbstractDevice, AbstractMesh, AxisType, use_abstract_mesh

from s5jax.ops import fft_conv, fft_conv_ref
from s5jax.ops._dft import _factors, cyclic_conv

TPU = AbstractMesh(
    (1,),
    ("data",),
    (AxisType.Auto,),
    abstract_device=AbstractDevice(device_kind="any", num_cores=None, platform="tpu"),
)


@pytest.mark.parametrize("n", [1, 2, 64, 128, 8192])
def test_cyclic_convolution_is_its_definition(n):
    x, k = normal(0, 2, n, 3), normal(1, n, 3)
    spectrum = np.fft.fft(np.asarray(x, float), axis=1) * np.fft.fft(np.asarray(k, float), axis=0)
    assert_close(jax.jit(cyclic_conv)(x, k), np.fft.ifft(spectrum, axis=1).real, rtol=2e-6)


def test_factors_are_nearly_equal():
    assert [_factors(n) for n in (1, 64, 128, 2**15)] == [[1], [64], [16, 8], [32, 32, 32]]


@pytest.mark.parametrize("L", tiers([1, 5, 100], {5}))
@pytest.mark.parametrize("lengths", [(200, None), (3, None), (100, 100), (2, 7)])
def test_convolutions_for_a_tpu(L, lengths):
    """Values and gradients in one direction and in both, with shorter and with longer kernels."""
    k, k_reverse = (None if n is None else normal(n, n, 3) for n in lengths)
    arguments = normal(0, 2, L, 3), k, k_reverse

    def results(conv):
        def loss(u, k, k_reverse):
            y = conv(u, k, k_reverse=k_reverse)
            return jnp.sum(y * jnp.cos(jnp.arange(y.size)).reshape(y.shape)), y

        return jax.value_and_grad(loss, (0, 1), has_aux=True)(*arguments)

    with use_abstract_mesh(TPU):
        program = jax.make_jaxpr(lambda u, k: fft_conv(u, k))(*arguments[:2])
        actual = jax.jit(lambda: results(fft_conv)).trace().jaxpr
    assert " fft" not in str(program)
    actual = jax.core.eval_jaxpr(actual.jaxpr, actual.consts)
    expected = jax.tree.leaves(results(fft_conv_ref))
    assert_close(actual, expected, rtol=2e-6)
