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
# # Time series
#
# Forecasts with intervals, classes of series, samples at irregular times, and a sensor that is
# read row by row. Everything runs in a minute on a laptop's CPU, without a download.

# %%
import contextlib
import csv
import dataclasses
import io
import tempfile
from pathlib import Path

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
from flax import nnx

from experiments.data.sources import Files
from experiments.recipes import get_recipe
from experiments.tasks.archives.options import ArchiveOptions
from experiments.tasks.series.task import EL_NINO
from experiments.training import ForecastStream, fit, predict
from s5jax import S5

folder = tempfile.TemporaryDirectory()
root = Path(folder.name)


def train(config, name, **options):
    """Trains quietly: the folder and the results of a run."""
    with contextlib.redirect_stdout(io.StringIO()):
        results = fit(config, root / name, **options)
    return root / name, results


# %% [markdown]
# ## A forecast with intervals
#
# The task `forecast` reads a table with a column of times. By default it is the sea surface
# temperature off Peru, month by month. The model reads 14 years and forecasts two. With
# `loss="quantile"` it learns the quantiles 0.1, 0.5 and 0.9 of every month.

# %%
config = get_recipe("forecast", "s5", "cpu")
config = dataclasses.replace(
    config,
    data=dataclasses.replace(config.data, loss="quantile"),
    train=dataclasses.replace(config.train, steps=300),
)
run, results = train(config, "el_nino")
test = results["test"]
errors = {name: test[f"mae_units{name}"] for name in ("", "_season", "_last")}
for name, label in {"": "model", "_season": "a year ago", "_last": "last value"}.items():
    print(f"{label:>12}: mean absolute error {errors[name]:.2f} °C")
assert errors[""] < errors["_season"] < errors["_last"]

# %% [markdown]
# `predict` forecasts what follows a table, or, with `start`, a time inside it. All years below are
# in the test part. The interval should hold four values out of five.

# %%
with EL_NINO.open(newline="") as file:
    rows = list(csv.DictReader(file))
months = np.array([row["time"] for row in rows], "datetime64[M]")
celsius = np.array([float(row["temperature"]) for row in rows])

STARTS = ("2001-01", "2003-01", "2005-01", "2007-01", "2009-01")
figure, ax = plt.subplots(figsize=(9, 3), layout="constrained")
ax.plot(months[-168:], celsius[-168:], color="0.3", linewidth=1, label="measured")
inside = []
for start in STARTS:
    forecast = predict(run, EL_NINO, start=start)
    low, mid, high, truth = (
        np.array([row[f"temperature{mark}"] for row in forecast])
        for mark in ("_low", "", "_high", "_true")
    )
    times = np.datetime64(start, "M") + np.arange(len(mid))
    ax.plot(times, mid, color="C0", label="median" if start == STARTS[0] else None)
    label = "quantiles 0.1 to 0.9" if start == STARTS[0] else None
    ax.fill_between(times, low, high, color="C0", alpha=0.25, label=label)
    inside.append((low <= truth) & (truth <= high))
ax.set_ylabel("temperature [°C]")
ax.legend(loc="upper left", bbox_to_anchor=(1, 1))
plt.show()
share = np.mean(inside)
print(f"{share:.0%} of {np.size(inside)} months are inside their interval")
assert 0.5 < share <= 1

# %% [markdown]
# ## A sensor, row by row
#
# `ForecastStream` reads one row at a time and renews its forecast, at a constant cost. The
# recurrent state stands for all rows so far, and so the last forecast equals that of the whole
# table.

# %%
AHEAD = 6
stream = ForecastStream(run)
ahead = []
for month, value in zip(months[-168:], celsius[-168:], strict=True):
    outlook = stream.step({"time": str(month), "temperature": value})
    ahead.append(outlook.interval.mean[AHEAD - 1, 0])

whole = [row["temperature"] for row in predict(run, EL_NINO)]
np.testing.assert_allclose(outlook.interval.mean[:, 0], whole, rtol=1e-5)

figure, ax = plt.subplots(figsize=(9, 2.5), layout="constrained")
ax.plot(months[-168:], celsius[-168:], color="0.3", linewidth=1, label="measured")
ax.plot(months[-168:] + AHEAD, ahead, color="C1", label=f"forecast {AHEAD} months before")
ax.set_ylabel("temperature [°C]")
ax.legend(loc="upper left", bbox_to_anchor=(1, 1))
plt.show()

# %% [markdown]
# The first months of a stream have little context, and the El Niño of 1997 comes as a surprise.
#
# ## Classes of series
#
# The task `uea` reads sets in the `.ts` format of the UEA and UCR archives. Here is a small one:
# waves of three shapes and of random length, phase and frequency, in noise. Shorter series are
# padded, and the padding does not count.

# %%
SHAPES = {
    "sine": np.sin,
    "square": lambda phase: np.sign(np.sin(phase)),
    "saw": lambda phase: phase / np.pi % 2 - 1,
}
rng = np.random.default_rng(0)
waves = root / "data/uea/Waves"
waves.mkdir(parents=True)
for part in ("TRAIN", "TEST"):
    lines = ["@univariate true", "@equalLength false", f"@classLabel true {' '.join(SHAPES)}"]
    lines.append("@data")
    for i in range(300):
        name = list(SHAPES)[i % 3]
        steps = np.arange(rng.integers(60, 101))
        wave = SHAPES[name](rng.uniform(0.2, 0.4) * steps + rng.uniform(0, 2 * np.pi))
        wave += 0.3 * rng.normal(size=len(wave))
        lines.append(",".join(f"{x:.3f}" for x in wave) + f":{name}")
    (waves / f"Waves_{part}.ts").write_text("\n".join(lines) + "\n")

config = get_recipe("uea", "s5", "cpu")
config = dataclasses.replace(
    config,
    data=ArchiveOptions(name="Waves", standardise=True),
    train=dataclasses.replace(config.train, steps=400),
)
run, results = train(config, "waves", files=Files(root / "data"))
accuracy = results["test"]["accuracy"]
print(f"test accuracy {accuracy:.1%}; guessing gives {1 / len(SHAPES):.1%}")
assert accuracy > 0.8

# %%
shown = root / "new.ts"
examples = [line for line in lines if ":" in line][:6]
shown.write_text("\n".join(["@data", *(line.rpartition(":")[0] for line in examples)]) + "\n")
figure, axes = plt.subplots(2, 3, figsize=(9, 3), layout="constrained", sharey=True)
for ax, row, line in zip(axes.flat, predict(run, shown), examples, strict=True):
    values, _, true = line.rpartition(":")
    ax.plot([float(value) for value in values.split(",")], linewidth=1)
    ax.set_title(f"{true}: {row['p_' + true]:.0%}", fontsize=10)
plt.show()

# %% [markdown]
# The titles have the true class, and the probability that the model gives it.
#
# ## Samples at irregular times
#
# A state space is a differential equation, which the layer solves from sample to sample. So S5,
# S4, S4D and LinOSS take the time since the sample before as `dt`. If the input is constant
# between samples, 60 samples of different steps give the same outputs as all 300 steps.

# %%
rng = np.random.default_rng(1)
dt = np.bincount(rng.integers(0, 60, 240), minlength=60) + 1
values = np.cumsum(rng.normal(size=60)).astype(np.float32)
layer = S5(d_model=1, d_state=16, dt_min=0.01, dt_max=0.1, rngs=nnx.Rngs(0))

sparse = jax.jit(layer)(values[None, :, None], dt=jnp.asarray(dt, jnp.float32)[None])[0, :, 0]
dense = jax.jit(layer)(np.repeat(values, dt)[None, :, None])[0, :, 0]
ignored = jax.jit(layer)(values[None, :, None])[0, :, 0]
times = np.cumsum(dt) - 1
np.testing.assert_allclose(sparse, dense[times], rtol=1e-4, atol=1e-4)
assert np.abs(ignored - dense[times]).max() > 0.1

figure, ax = plt.subplots(figsize=(9, 2.8), layout="constrained")
ax.plot(dense, color="0.6", label="all steps")
ax.plot(times, sparse, "C0o", markersize=4, label="samples with dt")
ax.plot(times, ignored, "C3x", markersize=4, label="samples without dt")
ax.set(xlabel="time", ylabel="output of the layer")
ax.legend(loc="upper left", bbox_to_anchor=(1, 1))
plt.show()

# %% [markdown]
# A table with irregular times needs no option: the task `forecast` finds them, and gives the
# layers `dt`. More on the pages
# "Forecasting" and "Archives of time series" of the documentation.

# %%
folder.cleanup()
