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
# # Claims of the papers, in pictures
#
# `python -m experiments.claims` lists claims of the five papers, judges the records of this
# project by rules, and prints the commands that made them. This notebook draws the records:
# memory after noise, starts and learning rates, and the atomic tasks of the DLR paper. It needs a
# checkout of the project, with its folder `results/`.

# %%
import statistics
from pathlib import Path

import jax
import matplotlib.pyplot as plt
import numpy as np
from flax import nnx

import experiments
from experiments.evidence import CLAIMS, Finding
from experiments.evidence.commands import (
    ATOMIC_LENGTH,
    ATOMIC_MODELS,
    ATOMIC_TASKS,
    RATES,
    STARTS,
    TAILS,
    atomic_name,
)
from experiments.evidence.finding import runs_of, values_of
from s5jax import HOPE, S4D, S5, Attention, SGConv

RESULTS = Path(experiments.__file__).parents[1] / "results"


def mean_and_deviation(name: str) -> tuple[float, float]:
    """The mean and the deviation over seeds of the runs of a claim; NaN where there are none."""
    values = values_of(runs_of(RESULTS, name))
    if not values:
        return np.nan, 0.0
    return statistics.mean(values), statistics.stdev(values) if len(values) > 1 else 0.0


def curve(ax, x, names, label):
    """Draws the means of some runs, with their deviations."""
    means, deviations = zip(*map(mean_and_deviation, names), strict=True)
    ax.errorbar(x, means, deviations, marker="o", capsize=3, label=label)


# %% [markdown]
# ## What the records say
#
# The status of each claim follows from the records by a rule.

# %%
found: dict[str, Finding] = {claim.name: claim.evidence(RESULTS) for claim in CLAIMS}
for claim in CLAIMS:
    print(f"{found[claim.name].status:<13} {claim.name:<18} {claim.text}")

# %% [markdown]
# ## Memory after noise
#
# A digit of 8 x 8 pixels enters pixel by pixel. A tail of noise follows, and the answer is read
# during its last 64 steps. With step sizes fixed at 0.1, as in HOPE's scripts, a state of S4D
# forgets half of its content every 14 steps at the start of training. HOPE's kernel is a sum of
# Laguerre-like functions whose weights are learnt directly, so it can place its memory anywhere.
# The plot on the right shows the initial kernels of both.

# %%
figure, (left, right) = plt.subplots(1, 2, figsize=(10, 3.6), layout="constrained")
for name in ("hope", "s4d", "s5"):
    curve(left, TAILS, [f"noisy-{name}-{tail}" for tail in TAILS], name.upper())
left.axhline(0.1, color="gray", linestyle=":", label="guessing")
left.set(xscale="log", xlabel="steps of noise", ylabel="test accuracy", ylim=(0, 1))
left.minorticks_off()
left.set_xticks(TAILS, map(str, TAILS))
left.legend()
steps = {"dt_min": 0.1, "dt_max": 0.1}
for label, layer in {
    "HOPE": HOPE(1, d_state=64, rngs=nnx.Rngs(0), **steps),
    "S4D": S4D(1, d_state=64, init="lin", rngs=nnx.Rngs(0), **steps),
}.items():
    kernel = np.abs(np.asarray(jax.jit(lambda layer=layer: layer.kernel(1_024))())[:, 0])
    right.plot(kernel / kernel.max(), linewidth=0.8, label=label)
right.set(yscale="log", ylim=(1e-7, 2), xlabel="lag", title="initial kernels, largest value 1")
right.legend()
plt.show()

# %% [markdown]
# ## Starts, and rates of the state space
#
# HOPE starts from random Markov parameters, S4D from HiPPO or from random eigenvalues. The
# parameters of the state space learn at the rate on the axis, all others at 4e-3.

# %%
figure, ax = plt.subplots(figsize=(6, 3.6), layout="constrained")
for name in STARTS:
    curve(ax, [float(rate) for rate in RATES], [f"start-{name}-{rate}" for rate in RATES], name)
ax.set(xscale="log", xlabel="learning rate of the state space", ylabel="test accuracy, digits")
ax.legend()
plt.show()

# %% [markdown]
# ## Which layer learns which atomic task
#
# R² after 600 batches, for signals of 512 steps. Shifts, sums and the solution of fixed equations
# are a few convolutions: DLR, with 1,024 states that start at all frequencies, learns them.
# Reversing, sorting or selecting takes another kernel at every step, and nothing learns that here
# in the time given, attention neither.

# %%
table = np.array(
    [
        [mean_and_deviation(atomic_name(task, ATOMIC_LENGTH, model))[0] for model in ATOMIC_MODELS]
        for task in ATOMIC_TASKS
    ]
)
figure, ax = plt.subplots(figsize=(6.5, 4.5), layout="constrained")
picture = ax.imshow(np.clip(table, 0, 1), cmap="viridis", vmin=0, vmax=1, aspect="auto")
ax.set_xticks(range(len(ATOMIC_MODELS)), ATOMIC_MODELS)
ax.set_yticks(range(len(ATOMIC_TASKS)), ATOMIC_TASKS)
for (i, j), value in np.ndenumerate(table):
    if np.isfinite(value):
        color = "black" if value > 0.6 else "white"
        ax.text(j, i, f"{round(value, 2) + 0:.2f}", ha="center", va="center", color=color)
figure.colorbar(picture, label="R²")
plt.show()

# %% [markdown]
# ## Parameters against length
#
# SGConv adds a sub-kernel each time the length doubles, so its parameters grow with the logarithm
# of the length. State spaces do not grow at all, and neither does attention.

# %%
lengths = [2**k for k in range(7, 18)]
figure, ax = plt.subplots(figsize=(6, 3.2), layout="constrained")
for label, make in {
    "SGConv": lambda L: SGConv(64, l_max=L, kernel_dim=32, rngs=nnx.Rngs(0)),
    "S5": lambda L: S5(64, d_state=64, rngs=nnx.Rngs(0)),
    "S4D": lambda L: S4D(64, d_state=64, rngs=nnx.Rngs(0)),
    "HOPE": lambda L: HOPE(64, d_state=64, rngs=nnx.Rngs(0)),
    "attention": lambda L: Attention(64, n_heads=4, l_max=L, rngs=nnx.Rngs(0)),
}.items():
    counts = []
    for L in lengths:
        shapes = nnx.state(nnx.eval_shape(lambda make=make, L=L: make(L)), nnx.Param)
        counts.append(sum(np.prod(x.shape) for x in jax.tree.leaves(shapes)))
    ax.plot(lengths, counts, marker=".", label=label)
ax.set(xscale="log", xlabel="length [steps]", ylabel="parameters of a layer of width 64")
ax.legend()
plt.show()
