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
# # Quickstart
#
# This notebook trains a classifier for handwritten digits, which reads one pixel at a time: 64
# steps of one feature. Training takes less than a minute on a laptop's CPU. The notebook shows
# what every layer of `s5jax` does: it trains on whole sequences, streams in single steps, and
# computes the same numbers in both ways.

# %%
import tempfile

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import optax
from flax import nnx
from sklearn.datasets import load_digits

from s5jax import S5, SequenceClassifier, load, param_labels, save

# %% [markdown]
# ## Images as sequences
#
# Scikit-learn's digits have 8 × 8 pixels. Read row by row, they are sequences of shape
# `(batch, time, features) = (1797, 64, 1)`.

# %%
digits = load_digits()
u = (digits.images.reshape(-1, 64, 1) / 16).astype(np.float32)
labels = digits.target
order = np.random.default_rng(0).permutation(len(u))
train, test = order[:1437], order[1437:]

figure, axes = plt.subplots(2, 8, figsize=(10, 2.6), height_ratios=[2, 1], layout="constrained")
for i, (image, sequence) in enumerate(axes.T):
    image.imshow(u[train[i], :, 0].reshape(8, 8), cmap="gray_r")
    image.set_title(f"{labels[train[i]]}")
    image.set_axis_off()
    sequence.plot(u[train[i], :, 0], color="C0", linewidth=1)
    sequence.set_xticks([0, 64])
    sequence.set_yticks([])
axes[1, 0].set_xlabel("time step")
plt.show()

# %% [markdown]
# ## A model
#
# The model has an encoder, residual blocks around a layer, pooling over time and a decoder. To
# change the layer, change one word. Step sizes are in units of the time of the state space. With
# at most 0.5 units per step, 64 steps are up to 32 units, and the slowest states forget in this
# time.

# %%
model = SequenceClassifier(
    S5,
    d_input=1,
    d_output=10,
    d_model=32,
    n_layers=2,
    layer_options={"d_state": 64, "dt_min": 0.01, "dt_max": 0.5},
    norm="layer",
    rngs=nnx.Rngs(0),
)
graphdef, parameters, rest = nnx.split(model, nnx.Param, ...)
parameters = nnx.to_pure_dict(parameters)
f"{sum(leaf.size for leaf in jax.tree.leaves(parameters)):,} parameters"

# %% [markdown]
# ## Training
#
# The papers train the state matrix and the step sizes more slowly than all other parameters, and
# without weight decay. `param_labels` returns the group of each parameter, in the form that
# `optax.multi_transform` takes.

# %%
EPOCHS, BATCH = 16, 32
steps = EPOCHS * (len(train) // BATCH)
optimizer = optax.multi_transform(
    {
        "ssm": optax.adam(optax.cosine_decay_schedule(2e-3, steps)),
        "regular": optax.adamw(optax.cosine_decay_schedule(8e-3, steps), weight_decay=0.01),
    },
    param_labels(model),
)


def logits_of(parameters, u):
    return nnx.merge(graphdef, parameters, rest)(u)


@jax.jit
def train_step(parameters, optimizer_state, u, labels):
    def loss_of(parameters):
        logits = logits_of(parameters, u)
        return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()

    loss, gradients = jax.value_and_grad(loss_of)(parameters)
    updates, optimizer_state = optimizer.update(gradients, optimizer_state, parameters)
    return optax.apply_updates(parameters, updates), optimizer_state, loss


predict = jax.jit(logits_of)

# %%
optimizer_state, losses, accuracies = optimizer.init(parameters), [], []
rng = np.random.default_rng(1)
for _ in range(EPOCHS):
    for batch in np.array_split(rng.permutation(train)[: steps // EPOCHS * BATCH], steps // EPOCHS):
        parameters, optimizer_state, loss = train_step(
            parameters, optimizer_state, u[batch], labels[batch]
        )
        losses.append(float(loss))
    accuracies.append(float((predict(parameters, u[test]).argmax(-1) == labels[test]).mean()))

figure, axes = plt.subplots(1, 2, figsize=(10, 3), layout="constrained")
axes[0].semilogy(losses, linewidth=0.8)
axes[0].set(xlabel="step", ylabel="training loss")
axes[1].plot(np.arange(1, EPOCHS + 1), accuracies, "o-")
axes[1].set(xlabel="epoch", ylabel="test accuracy", ylim=(0, 1))
assert accuracies[-1] > 0.93, accuracies
plt.show()
print(f"test accuracy {accuracies[-1]:.1%}")

# %% [markdown]
# ## Streaming
#
# The trained model is also a recurrence: it reads pixel by pixel, with a state of fixed size.
# After every pixel, it returns its answer for a sequence that ends there. The last answer equals
# the answer for the whole sequence.

# %%
trained = nnx.merge(graphdef, parameters, rest)
trained.eval()
some = test[:6]


@jax.jit
def stream(u):
    def step(state, u_t):
        logits, state = trained.step(u_t, state)
        return state, jax.nn.softmax(logits)

    return jax.lax.scan(step, trained.init_state(u.shape[:1]), jnp.moveaxis(u, 1, 0))[1]


answers = np.asarray(stream(u[some]))
whole = jax.nn.softmax(predict(parameters, u[some]))
difference = np.abs(answers[-1] - whole).max()
assert difference < 1e-5

figure, axes = plt.subplots(2, 6, figsize=(10, 3.6), height_ratios=[1, 1.4], layout="constrained")
for i, (image, plot) in enumerate(axes.T):
    image.imshow(u[some[i], :, 0].reshape(8, 8), cmap="gray_r")
    image.set_axis_off()
    plot.imshow(answers[:, i].T, aspect="auto", origin="lower", cmap="magma", vmin=0, vmax=1)
    plot.set_xlabel("pixels read")
    plot.set_yticks(range(10) if i == 0 else [])
axes[1, 0].set_ylabel("probability of digit")
plt.show()
print(f"largest difference of stream and whole sequence: {difference:.1e}")

# %% [markdown]
# ## Saving
#
# A saved model is a folder with a JSON and a safetensors file, which other programs can read.

# %%
with tempfile.TemporaryDirectory() as folder:
    save(trained, folder)
    again = load(folder)
np.testing.assert_array_equal(jax.jit(again)(u[some]), jax.jit(trained)(u[some]))
