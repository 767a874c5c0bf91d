# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # One kernel, many parameterisations
#
# Every linear layer of `s5jax` is a convolution, $y_t = \sum_l K_l u_{t-l}$. The papers differ in
# how they parameterise $K$. This notebook plots the initial kernels and their spectra, checks
# that steps, chunks and whole sequences give the same outputs, and shows how many states each
# kernel needs.

# %%
import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
from flax import nnx

from s5jax import DLR, HOPE, LRU, S4, S4D, S5, SGConv, reduce_order
from s5jax.ops import hankel_singular_values

H, L = 4, 512
rngs = nnx.Rngs(0)
layers = {
    "S4": S4(H, d_state=64, rngs=rngs),
    "S4D": S4D(H, d_state=64, init="lin", rngs=rngs),
    "S5": S5(H, d_state=64, rngs=rngs),
    "LRU": LRU(H, d_state=64, r_min=0.9, r_max=0.999, max_phase=0.3, rngs=rngs),
    "DLR": DLR(H, d_state=256, rngs=rngs),
    "HOPE": HOPE(H, d_state=64, dt_min=0.1, dt_max=1.0, rngs=rngs),
    "SGConv": SGConv(H, l_max=L, kernel_dim=64, rngs=rngs),
}

# %% [markdown]
# ## Kernels
#
# S5 and LRU mix features, so their kernel is a matrix at each lag; the plot shows its diagonal.
# It leaves out lag 0, which contains the skip connection.

# %%
kernels = {}
for name, layer in layers.items():
    K = np.asarray(jax.jit(lambda layer=layer: layer.kernel(L))())
    kernels[name] = K if K.ndim == 2 else np.einsum("lhh->lh", K)

figure, axes = plt.subplots(2, 4, figsize=(12, 5), layout="constrained", sharex=True)
for ax, (name, K) in zip(axes.flat, kernels.items(), strict=False):
    ax.plot(np.arange(1, L), K[1:], linewidth=0.8)
    ax.set_title(name)
    ax.set_xscale("log")
    ax.set_yticks([])
    ax.set_xlabel("lag")
axes.flat[-1].set_axis_off()
plt.show()

# %% [markdown]
# S4's kernel is smooth at every scale: large step sizes see the near past, small ones the far
# past. S4D-Lin and DLR ring at evenly spaced frequencies, and each frequency has its own decay.
# HOPE is a sum of delays of growing length. SGConv is a sequence of stretched random pieces. The
# spectra show the same.

# %%
figure, axes = plt.subplots(2, 4, figsize=(12, 5), layout="constrained", sharex=True)
frequency = np.fft.rfftfreq(2 * L)
for ax, (name, K) in zip(axes.flat, kernels.items(), strict=False):
    spectrum = np.abs(np.fft.rfft(K[1:], 2 * L, axis=0))
    ax.loglog(frequency[1:], spectrum[1:], linewidth=0.8)
    ax.set_title(name)
    ax.set_xlabel("frequency [1 / step]")
axes[0, 0].set_ylabel("gain")
axes[1, 0].set_ylabel("gain")
axes.flat[-1].set_axis_off()
plt.show()

# %% [markdown]
# ## Step = chunk = convolution
#
# Each layer gets the same random sequence as a whole, in four chunks and step by step. SGConv
# steps in two ways: from the last inputs themselves, or from sums of them. A stretched piece of
# its kernel is a sum of hat functions, and a hat of twice the width is a sum of three hats. The
# second way (dyadic) therefore takes a few hundred multiplications, however long the kernel is.

# %%
u = jax.random.normal(jax.random.key(1), (2, L, H))


@jax.jit
def by_chunks(layer, u):
    def chunk(state, u):
        return layer(u, state=state, return_state=True)[::-1]

    state = layer.init_state(u.shape[:1])
    return jnp.concatenate(jax.lax.scan(chunk, state, jnp.stack(jnp.split(u, 4, axis=1)))[1], 1)


@jax.jit
def by_steps(layer, u, state):
    def step(state, u_t):
        return layer.step(u_t, state)[::-1]

    return jnp.moveaxis(jax.lax.scan(step, state, jnp.moveaxis(u, 1, 0))[1], 0, 1)


def distance(y, whole):
    return float(np.abs(y - whole).max() / np.abs(whole).max())


outputs, differences = {}, {}
for name, layer in layers.items():
    outputs[name] = whole = jax.jit(layer)(u)
    differences[name] = [
        distance(by_chunks(layer, u), whole),
        distance(by_steps(layer, u, layer.init_state((2,))), whole),
    ]
dyadic = by_steps(layers["SGConv"], u, layers["SGConv"].init_multiscale_state((2,)))
differences["SGConv, dyadic"] = [np.nan, distance(dyadic, outputs["SGConv"])]

figure, ax = plt.subplots(figsize=(8, 3.5), layout="constrained")
x = np.arange(len(differences))
for i, label in enumerate(["chunks", "steps"]):
    ax.bar(x + 0.4 * i, [pair[i] for pair in differences.values()], width=0.4, label=label)
ax.axhline(np.finfo(np.float32).eps, color="black", linewidth=0.8, linestyle=":")
ax.set(yscale="log", ylim=(1e-8, 1e-3), ylabel="largest difference to the whole, relative")
ax.set_xticks(x + 0.2, differences, rotation=20)
ax.legend()
plt.show()
assert max(np.nanmax(pair) for pair in differences.values()) < 1e-4

# %% [markdown]
# ## How many states does a kernel need?
#
# The singular values of the Hankel matrix $K_{i+j}$ answer this question. For every recurrence of
# $r$ states, the largest error of the frequency response is at least $\sigma_{r+1}$.

# %%
figure, ax = plt.subplots(figsize=(7, 4), layout="constrained")
for name, K in kernels.items():
    sigma = hankel_singular_values(K[1:, :1], 128)[0]
    ax.semilogy(np.arange(1, 129), np.maximum(sigma / sigma[0], 1e-12), label=name)
ax.set(xlabel="index k", ylabel="$\\sigma_k / \\sigma_1$", ylim=(1e-9, 2))
ax.legend(ncols=2)
plt.show()

# %% [markdown]
# HOPE needs exactly its 64 states. S4 and LRU need about thirty for two digits. Kernels that have
# not decayed are cut off here, and the edge causes the rest of their singular values. DLR's 256
# states and SGConv's 256 numbers have no short recurrence. `reduce_order` converts any causal
# layer to a small state space that steps and streams, with a bound on its error.

# %%
orders = [4, 16, 64]
figure, axes = plt.subplots(1, 3, figsize=(12, 3.5), layout="constrained", sharey=True)
for ax, name in zip(axes, ["S4", "HOPE", "SGConv"], strict=True):
    y = outputs[name]
    errors, bounds = [], []
    for order in orders:
        reduced = reduce_order(layers[name], order, l_max=L)
        errors.append(np.linalg.norm(reduced(u) - y, axis=(0, 1)) / np.linalg.norm(u, axis=(0, 1)))
        bounds.append(reduced.error_bound[...])
    assert (np.array(errors) <= np.array(bounds) + 1e-4).all()
    ax.loglog(orders, errors, "o-", color="C0")
    ax.loglog(orders, bounds, "--", color="C1")
    ax.set_xscale("log", base=2)
    ax.set(title=name, xlabel="states a feature")
axes[0].plot([], [], "o-", color="C0", label="error on noise")
axes[0].plot([], [], "--", color="C1", label="bound")
axes[0].set_ylabel("gain of the error")
axes[0].legend()
plt.show()

# %% [markdown]
# With 64 states per feature, SGConv is still far from its kernel; its exact recurrence is the
# dyadic one.
