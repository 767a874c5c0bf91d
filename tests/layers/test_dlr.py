"""What only DLR and DSS promise; the contract of all layers is in `test_conformance`."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from helpers import assert_close, loss_and_grads, normal, run

from s5jax import DLR, load, param_labels, save
from s5jax.ops import dlr_kernel_ref, dss_softmax_kernel_ref, fft_conv_ref, pair_to_complex

pytestmark = pytest.mark.slow

H, N, L, CUT = 3, 6, 14, 5
VERSIONS = ("dlr", "dss_exp", "dss_softmax")


def make(**options):
    return DLR(H, N, rngs=nnx.Rngs(0), **{"dt_min": 1e-2, "dt_max": 0.3} | options)


def dlr_ref(layer, u):
    """The published kernels, and their dense convolution."""
    raw, Lambda_im = layer.raw_Lambda_re[...], layer.Lambda_im[...]
    W, Delta = pair_to_complex(layer.W[...]), 1.0
    if layer.version == "dlr":
        Lambda = -(raw**2) + 1j * Lambda_im
        z = Lambda
    else:
        re = -jnp.exp(raw) if layer.version == "dss_exp" else raw
        Lambda, Delta = re + 1j * Lambda_im, jnp.exp(layer.log_step[...])
        z = Delta[:, None] * Lambda
        if layer.version == "dss_exp":
            W = W * (jnp.exp(z) - 1) / Lambda
    L = u.shape[-2]
    cut = L if layer.l_kernel is None else min(L, layer.l_kernel)
    if layer.version == "dss_softmax":
        K = dss_softmax_kernel_ref(W, Lambda, Delta, cut, kernel_to_real=layer.kernel_to_real)
    else:
        K = dlr_kernel_ref(W, z, cut, kernel_to_real=layer.kernel_to_real)
    ahead = K[1] if layer.bidirectional else None
    return fft_conv_ref(u, K[0], k_reverse=ahead) + layer.D[...] * u


def weigh(y):
    return jnp.sum(jnp.cos(jnp.arange(y.size)).reshape(y.shape) * y)


@pytest.mark.parametrize("l_kernel", [None, CUT])
@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize(
    ("version", "kernel_to_real", "algorithm"),
    [
        *itertools.product(("dlr",), ("real", "imag", "sum", "prod"), ("fft", "scan")),
        *itertools.product(("dss_exp",), ("real", "prod"), ("fft", "scan")),
        *itertools.product(("dlr", "dss_exp"), ("real", "prod"), ("chunked",)),
        *itertools.product(("dss_softmax",), ("real", "prod"), ("fft",)),
    ],
)
@jax.enable_x64(True)
def test_layer_is_the_published_one(version, kernel_to_real, algorithm, bidirectional, l_kernel):
    """Values, and gradients of all parameters and the input."""
    if algorithm == "chunked" and l_kernel is not None:
        pytest.skip("refused, see below")
    layer = make(
        version=version,
        kernel_to_real=kernel_to_real,
        algorithm=algorithm,
        bidirectional=bidirectional,
        l_kernel=l_kernel,
        param_dtype="float64",
    )
    if version == "dss_softmax":
        layer.raw_Lambda_re[...] = layer.raw_Lambda_re[...].at[::2].multiply(-1.0)
    u = jnp.asarray(np.random.default_rng(1).normal(size=(2, L, H)))
    got = loss_and_grads(layer, lambda m, u: weigh(m(u)), u)
    assert_close(got, loss_and_grads(layer, lambda m, u: weigh(dlr_ref(m, u)), u), rtol=1e-9)


@pytest.mark.parametrize("algorithm", ["fft", "scan", "associative"])
@pytest.mark.parametrize("bidirectional", [False, True])
def test_a_cut_kernel_respects_segments_and_padding(algorithm, bidirectional):
    layer = make(algorithm=algorithm, bidirectional=bidirectional, l_kernel=CUT)
    u, bounds = normal(0, 2, 20, H), [0, 3, 12, 20]
    resets = np.zeros((2, 20), bool)
    resets[0, bounds[1:-1]] = True
    y = run(layer, u.at[0, 1].set(jnp.nan), resets=jnp.asarray(resets))
    assert jnp.isnan(y[0, 1:3]).all()
    for a, b in itertools.pairwise(bounds[1:]):
        assert_close(y[0, a:b], run(layer, u[0, a:b]))
    assert_close(y[1], run(layer, u[1]))
    lengths = jnp.array([20, 8])
    y = run(layer, u.at[1, 8:].set(jnp.nan), lengths=lengths)
    assert_close(y[1, :8], run(layer, u[1, :8]))
    assert (y[1, 8:] == 0).all()


@pytest.mark.parametrize("bidirectional", [False, True])
def test_kernel_ends_at_the_cut(bidirectional):
    layer = make(bidirectional=bidirectional, l_kernel=CUT)
    for K in layer.kernel(L) if bidirectional else [layer.kernel(L)]:
        assert K.shape == (L, H)
        assert (K[:CUT] != 0).all()
        assert (K[CUT:] == 0).all()
    assert layer.kernel(2)[0].shape == ((2, H) if bidirectional else (H,))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"l_kernel": CUT}, r"needs a recurrence.*`l_kernel` = 5.*`l_kernel=None`"),
        ({"version": "dss_softmax"}, r"needs a recurrence.*'dss_softmax'.*'dss_exp'"),
        ({"l_kernel": CUT, "bidirectional": True}, "needs a causal layer"),
    ],
)
def test_without_a_recurrence_there_is_no_state(options, message):
    layer, u = make(**options), normal(0, 2, L, H)
    state = layer.init_state((2,))
    for call in [
        lambda: layer.step(u[:, 0], state),
        lambda: layer(u, return_state=True),
        lambda: layer(u, state=state),
        layer.to_ssm,
    ]:
        with pytest.raises(ValueError, match=message):
            call()


def test_softmax_refuses_edits_and_depends_on_the_length():
    layer, u = make(version="dss_softmax"), normal(0, 2, L, H)
    for arguments in ({"lengths": jnp.array([L, 3])}, {"resets": jnp.zeros((2, L), bool)}):
        with pytest.raises(ValueError, match=r"DLR: .*'dss_softmax'.*`lengths` and `resets`"):
            layer(u, **arguments)
    assert jnp.abs(layer.kernel(L)[:3] - layer.kernel(3)).max() > 1e-3


@pytest.mark.parametrize("version", VERSIONS)
def test_initial_parameters(version):
    layer = DLR(8, 512, version=version, rngs=nnx.Rngs(0))
    scale = 1 / 512 if version == "dlr" else 1.0
    assert float(jnp.std(layer.W[...])) == pytest.approx(scale, rel=0.05)
    Lambda, Delta = layer._exponents()
    assert (Lambda.real < 0).all()
    if version == "dlr":
        assert (Delta == 1).all()
        assert Lambda.real.min() >= -0.051
    else:
        assert Delta.min() >= 0.99e-4
        np.testing.assert_allclose(Lambda.imag, np.pi * np.arange(512), rtol=1e-6)


@pytest.mark.parametrize("version", VERSIONS)
def test_optimiser_groups(version):
    labels = param_labels(make(version=version))
    ssm = {"raw_Lambda_re", "Lambda_im", "W"} | ({"log_step"} if version != "dlr" else set())
    assert labels == dict.fromkeys(ssm, "ssm") | {"D": "regular"}


@pytest.mark.parametrize("version", VERSIONS)
def test_save_and_load(version, tmp_path):
    layer = make(version=version, l_kernel=CUT, kernel_to_real="sum", bidirectional=True)
    save(layer, tmp_path)
    u = normal(0, L, H)
    assert_close(load(tmp_path)(u), layer(u), rtol=0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"d_state": 0}, "DLR: `d_state` must be a positive integer"),
        ({"l_kernel": 0}, "DLR: `l_kernel` must be a positive integer"),
        ({"version": "dss-exp"}, r"`version` must be one of.*Did you mean 'dss_exp'\?"),
        ({"kernel_to_real": "product"}, r"`kernel_to_real` must be one of.*'prod'\?"),
        (
            {"algorithm": "convolution"},
            "`algorithm` must be one of 'auto', 'fft', 'chunked', 'scan', 'sequential'",
        ),
        ({"Lambda_init": "lin"}, r"`Lambda_init` is an option of the DSS versions.*'lin'"),
        ({"version": "dss_exp", "Lambda_init": "legs"}, "`Lambda_init` must be one of"),
        ({"l_kernel": CUT, "algorithm": "chunked"}, "have no state to pass on"),
        ({"version": "dss_softmax", "algorithm": "scan"}, "have no state to pass on"),
        ({"dt_min": 1.0, "dt_max": 0.1}, "`dt_min` <= `dt_max`"),
    ],
)
def test_bad_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        DLR(**({"d_model": H, "d_state": N} | options), rngs=nnx.Rngs(0))
