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
# # Fine-tuning: a trained backbone, a new head
#
# This notebook trains a model on the digits 0 to 4, keeps its backbone, and teaches it the digits
# 5 to 9 with a few labelled examples. It compares what can be frozen: everything but the new head,
# the recurrence alone, or nothing. It takes a few minutes on a laptop's CPU.

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
# ## A trained model
#
# As in the quickstart, the model reads the 64 pixels of a digit one by one.

# %%
digits = load_digits()
u = (digits.images.reshape(-1, 64, 1) / 16).astype(np.float32)
labels = digits.target
order = np.random.default_rng(0).permutation(len(u))
old, new = order[labels[order] < 5], order[labels[order] >= 5]
old_train, old_test = old[:700], old[700:]
new_train, new_test = new[:400], new[400:]


def new_model(seed):
    return SequenceClassifier(
        S5,
        d_input=1,
        d_output=5,
        d_model=32,
        n_layers=2,
        layer_options={"d_state": 32, "dt_min": 0.01, "dt_max": 0.5},
        norm="layer",
        rngs=nnx.Rngs(seed),
    )


def parameters_of(model):
    return nnx.to_pure_dict(nnx.state(model, nnx.Param))


graphdef = nnx.graphdef(new_model(0))


def logits_of(parameters, u):
    return nnx.merge(graphdef, parameters)(u)


def make_step(optimizer):
    """Returns one step of training, on a batch of sequences and labels."""

    def step(parameters, optimizer_state, u, labels):
        def loss_of(parameters):
            logits = logits_of(parameters, u)
            return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()

        gradients = jax.grad(loss_of)(parameters)
        updates, optimizer_state = optimizer.update(gradients, optimizer_state, parameters)
        return optax.apply_updates(parameters, updates), optimizer_state

    return step


def train(optimizer, parameters, batches):
    """Trains on `batches`, indices of shape (steps, batch), of digits labelled from 0 to 4."""
    step = make_step(optimizer)

    def body(carry, batch):
        return step(*carry, jnp.asarray(u)[batch], jnp.asarray(labels % 5)[batch]), None

    carry = parameters, optimizer.init(parameters)
    return jax.lax.scan(body, carry, batches)[0][0]


def accuracy(parameters, examples):
    return (logits_of(parameters, u[examples]).argmax(-1) == labels[examples] % 5).mean()


# %%
rng = np.random.default_rng(1)
model = new_model(0)
STEPS = 500
optimizer = optax.multi_transform(
    {
        "ssm": optax.adam(optax.cosine_decay_schedule(2e-3, STEPS)),
        "regular": optax.adamw(optax.cosine_decay_schedule(8e-3, STEPS), weight_decay=0.01),
    },
    param_labels(model),
)
batches = rng.choice(old_train, (STEPS, 32))
trained = jax.jit(lambda parameters: train(optimizer, parameters, batches))(parameters_of(model))
old_accuracy = float(jax.jit(lambda parameters: accuracy(parameters, old_test))(trained))
assert old_accuracy > 0.95, old_accuracy
folder = tempfile.TemporaryDirectory()
save(nnx.merge(graphdef, trained), folder.name)
print(f"test accuracy on the digits 0 to 4: {old_accuracy:.1%}")

# %% [markdown]
# ## A new head
#
# `load` returns the model as it was saved. The new task needs another head, of its own number of
# classes. So we build a new model around the trained backbone: `nnx.update` copies the arrays of
# one module into another. The result is an ordinary `SequenceClassifier`, which `save` accepts.

# %%
pretrained = load(folder.name)


def fine_tunable(seed):
    model = new_model(seed)
    nnx.update(model.backbone, nnx.state(pretrained.backbone))
    return model


# %% [markdown]
# ## What to freeze
#
# `param_labels` names the group of each parameter, and a frozen group is a group of its own, with
# `optax.set_to_zero`. The labels are nested dictionaries like the parameters, so a part of a model
# is frozen by its name, and the recurrences by their group.

# %%
groups = param_labels(model)
as_declared = dict(groups)
no_backbone = as_declared | {"backbone": jax.tree.map(lambda _: "frozen", groups["backbone"])}
no_recurrence = jax.tree.map(lambda group: "frozen" if group == "ssm" else group, as_declared)

TUNING = 100


def optimizer_for(groups):
    return optax.multi_transform(
        {
            "ssm": optax.adam(optax.cosine_decay_schedule(2e-3, TUNING)),
            "regular": optax.adam(optax.cosine_decay_schedule(8e-3, TUNING)),
            "frozen": optax.set_to_zero(),
        },
        groups,
    )


strategies = {
    "from scratch": (new_model, as_declared),
    "head only": (fine_tunable, no_backbone),
    "all but the recurrence": (fine_tunable, no_recurrence),
    "everything": (fine_tunable, as_declared),
}

# %% [markdown]
# ## What freezing saves
#
# Frozen parameters need no moments in Adam. Under `jax.jit`, the compiler also leaves out whatever
# only their gradients need: with a frozen backbone, no gradient goes back through the layers, and
# the backward pass needs no activations. The operations and the memory of one step on 32 sequences
# are the compiler's own estimates.

# %%
parameters = parameters_of(fine_tunable(0))
batch = u[new_train[:32]], labels[new_train[:32]] % 5
costs = {}
for name in ("head only", "all but the recurrence", "everything"):
    groups = strategies[name][1]
    optimizer = optimizer_for(groups)
    state = optimizer.init(parameters)
    step = jax.jit(make_step(optimizer)).lower(parameters, state, *batch).compile()
    after, _ = step(parameters, state, *batch)

    frozen = [group == "frozen" for group in jax.tree.leaves(groups)]
    leaves = list(zip(jax.tree.leaves(parameters), jax.tree.leaves(after), frozen, strict=True))
    assert all((old == new).all() for old, new, kept in leaves if kept)
    costs[name] = {
        "trainable parameters": sum(old.size for old, _, kept in leaves if not kept),
        "numbers in the optimiser": sum(leaf.size for leaf in jax.tree.leaves(state)),
        "operations": step.cost_analysis()["flops"],
        "temporary memory": step.memory_analysis().temp_size_in_bytes,
    }
everything = costs["everything"]
for name, cost in costs.items():
    print(f"{name}:", ", ".join(f"{cost[key] / everything[key]:.0%} {key}" for key in cost))
assert costs["head only"]["operations"] < 0.5 * everything["operations"]

# %% [markdown]
# ## What freezing gives
#
# Each strategy takes 100 steps on 2 to 50 examples per digit, with three draws of examples and of
# first heads. `jax.vmap` trains all nine models of a strategy together.

# %%
COUNTS, DRAWS = (2, 10, 50), 3
batches = []
for count in COUNTS:
    for draw in range(DRAWS):
        rng = np.random.default_rng((count, draw))
        chosen = [rng.choice(new_train[labels[new_train] == d], count, False) for d in range(5, 10)]
        batches.append(rng.choice(np.concatenate(chosen), (TUNING, 32)))
batches = np.stack(batches)

accuracies = {}
for name, (start, groups) in strategies.items():
    starts = [parameters_of(start(draw)) for _ in COUNTS for draw in range(DRAWS)]
    starts = jax.tree.map(lambda *leaves: jnp.stack(leaves), *starts)

    def tune(parameters, batches, groups=groups):
        tuned = train(optimizer_for(groups), parameters, batches)
        return accuracy(tuned, new_test)

    found = np.asarray(jax.jit(jax.vmap(tune))(starts, batches)).reshape(len(COUNTS), DRAWS)
    accuracies[name] = found
    print(f"{name:24}", *(f"{mean:6.1%}" for mean in found.mean(axis=1)))

figure, ax = plt.subplots(figsize=(7, 3.6), layout="constrained")
styles = {"from scratch": "C7o--", "head only": "C1s-", "all but the recurrence": "C0^-"}
styles["everything"] = "C3v-"
for (name, found), shift in zip(accuracies.items(), (0.94, 0.98, 1.02, 1.06), strict=True):
    mean = found.mean(axis=1)
    spread = np.abs([found.min(axis=1), found.max(axis=1)] - mean)
    ax.errorbar(np.array(COUNTS) * shift, mean, spread, fmt=styles[name], capsize=3, label=name)
ax.axhline(0.2, color="black", linestyle=":", label="chance")
ax.set(xscale="log", xlabel="labelled examples per digit", ylabel="accuracy on the digits 5 to 9")
ax.set(ylim=(0, 1))
ax.set_xticks(COUNTS, COUNTS)
ax.minorticks_off()
ax.legend(loc="center left", bbox_to_anchor=(1, 0.5))
plt.show()

last = {name: found[-1].mean() for name, found in accuracies.items()}
assert last["everything"] > last["from scratch"] + 0.03, last
assert abs(last["everything"] - last["all but the recurrence"]) < 0.05, last

# %% [markdown]
# Points are means, and bars reach from the worst to the best draw.
#
# - The trained backbone helps: on average, models that start from it learn more from two examples
#   per digit than models from scratch learn from ten in the same number of steps.
# - The recurrence can stay frozen at little cost. How long its states remember suits these images,
#   too, and the other parameters adapt to the new digits.
# - A new head alone is not enough. The backbone was trained to tell five digits apart, and its 32
#   pooled features say little about the others. Training the head alone suits backbones that know
#   more than the new task needs.
#
# ## Saving
#
# The tuned model is saved as any other.

# %%
optimizer = optimizer_for(no_recurrence)
tuned = jax.jit(lambda parameters: train(optimizer, parameters, batches[-1]))(
    parameters_of(fine_tunable(0))
)
model = nnx.merge(graphdef, tuned)
save(model, folder.name)
again = load(folder.name)
np.testing.assert_array_equal(jax.jit(again)(u[new_test]), jax.jit(model)(u[new_test]))
folder.cleanup()
