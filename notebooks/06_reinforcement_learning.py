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
# # Reinforcement learning with memory
#
# An agent that must remember acts step by step, and learns from whole rollouts in which episodes
# begin and end. Both are the same function here: `step` acts, and one call with `resets` computes
# the same logits for all steps together. This notebook trains an agent with an S5 and one with a
# GRU by PPO on a task of memory. Everything runs on the device, in a few minutes on two CPU cores.

# %%
from typing import NamedTuple

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import optax
from flax import nnx
from jax.scipy.stats import binom

from s5jax import GRU, S5, SequenceLabeler, param_labels

# %% [markdown]
# ## The task
#
# The agent walks down a corridor whose length it does not know, and turns left or right at the
# end. On the way, every step shows a hint, left or right, and 40 % of the hints are wrong. The end
# shows none. A correct turn gives a reward of 1 and a wrong turn −1; walking into a wall costs
# 0.05. An agent without memory is right in half of the mazes, and its return is 0. The best agent
# counts the hints. Its rate of success follows from the binomial distribution, so we know the
# return to reach.

# %%
LEFT, RIGHT, FORWARD = range(3)
SHORTEST, LONGEST, TRUE_HINTS = 20, 100, 0.6


class Mazes(NamedTuple):
    """A batch of mazes; every field has shape (n,)."""

    side: jax.Array  # -1 (left) or 1 (right)
    length: jax.Array
    position: jax.Array
    clock: jax.Array


def new_mazes(key, n):
    side_key, length_key = jax.random.split(key)
    side = jax.random.rademacher(side_key, (n,), jnp.float32)
    length = jax.random.randint(length_key, (n,), SHORTEST, LONGEST + 1)
    return Mazes(side, length, jnp.zeros(n, int), jnp.zeros(n, int))


def observe(key, mazes):
    """Returns observations, (n, 2): a hint, and whether the corridor ends here."""
    at_end = mazes.position == mazes.length
    true = jax.random.bernoulli(key, TRUE_HINTS, mazes.side.shape)
    hint = jnp.where(true, mazes.side, -mazes.side)
    return jnp.stack([jnp.where(at_end, 0.0, hint), jnp.where(at_end, 1.0, 0.0)], axis=-1)


def move(mazes, action):
    """Returns the mazes after an action, the rewards, and whether the episodes are over."""
    at_end, forward = mazes.position == mazes.length, action == FORWARD
    turned, walked = at_end & ~forward, forward & ~at_end
    correct = (action == RIGHT) == (mazes.side > 0)
    reward = jnp.where(turned, jnp.where(correct, 1.0, -1.0), jnp.where(walked, 0.0, -0.05))
    mazes = mazes._replace(position=mazes.position + walked, clock=mazes.clock + 1)
    return mazes, reward, turned | (mazes.clock == 2 * LONGEST)


def success_of_counting(length):
    """Probability that most of the hints are true; a draw is decided by a coin."""
    n = jnp.asarray(length)[..., None]
    k = jnp.arange(1000)
    wins = jnp.where(2 * k > n, 1.0, jnp.where(2 * k == n, 0.5, 0.0))
    return (wins * jnp.where(k <= n, binom.pmf(k, n, TRUE_HINTS), 0.0)).sum(-1)


best = float(success_of_counting(jnp.arange(SHORTEST, LONGEST + 1)).mean())
print(f"counting the hints is right in {best:.1%} of the mazes: a return of {2 * best - 1:.2f}")

# %% [markdown]
# ## The agent
#
# A `SequenceLabeler` returns outputs at every step. Here they are four numbers: the logits of
# three actions, and an estimate of the value. Both agents have a state of 64 real numbers; S5
# stores 32 complex states, because the other 32 are their conjugates.

# %%
LAYERS = {
    "S5": (S5, {"d_state": 64, "dt_min": 0.001, "dt_max": 0.1}),
    "GRU": (GRU, {"d_state": 64}),
}


def new_model(name, seed):
    layer, options = LAYERS[name]
    return SequenceLabeler(
        layer,
        d_input=2,
        d_output=4,
        d_model=32,
        n_layers=1,
        layer_options=options,
        norm="layer",
        rngs=nnx.Rngs(seed),
    )


def split_output(y):
    """Splits the outputs into the log-probabilities of the actions and the value."""
    return jax.nn.log_softmax(y[..., :3]), y[..., 3]


# %% [markdown]
# ## Acting: one step at a time
#
# 32 mazes run side by side. When an episode ends, a new maze replaces the old one, and the agent
# starts from its initial state. A rollout of 256 steps therefore holds several episodes of unequal
# length, and it begins and ends in the middle of one.

# %%
N, STEPS = 32, 256


class Rollout(NamedTuple):
    """What happened; every field has axes (maze, time)."""

    u: jax.Array  # observations
    start: jax.Array  # whether this is the first step of an episode
    y: jax.Array  # outputs of the agent
    action: jax.Array
    reward: jax.Array
    done: jax.Array  # whether this was the last step of an episode


def choose(start, new, old):
    """Takes `new` where an episode starts, in every array of a tree."""

    def where(a, b):
        return jnp.where(start.reshape(-1, *[1] * (a.ndim - 1)), a, b)

    return jax.tree.map(where, new, old)


def act(model, world, key):
    """Takes STEPS steps in all mazes; `world` is where the last rollout ended."""

    def step(world, key):
        mazes, u, start, state = world
        action_key, maze_key, hint_key = jax.random.split(key, 3)
        y, state = model.step(u, choose(start, model.init_state((N,)), state))
        action = jax.random.categorical(action_key, split_output(y)[0])
        mazes, reward, done = move(mazes, action)
        mazes = choose(done, new_mazes(maze_key, N), mazes)
        world = mazes, observe(hint_key, mazes), done, state
        return world, Rollout(u, start, y, action, reward, done)

    world, rollout = jax.lax.scan(step, world, jax.random.split(key, STEPS))
    return world, jax.tree.map(lambda x: jnp.moveaxis(x, 0, 1), rollout)


def new_world(model, key):
    mazes = new_mazes(key, N)
    return mazes, observe(key, mazes), jnp.ones(N, bool), model.init_state((N,))


# %% [markdown]
# ## Learning: all steps together
#
# The learner reads the same observations as one batch of sequences. It passes the state at the
# start of the rollout, and `resets`, which is True at the first step of each episode. The outputs
# equal those of the acting agent. Without `resets` they would depend on earlier mazes, and the
# learner would improve a policy that nobody follows.

# %%
differences = {}
for name in LAYERS:
    model = new_model(name, seed=0)
    run = jax.jit(act)
    world, _ = run(model, new_world(model, jax.random.key(0)), jax.random.key(1))
    _, rollout = run(model, world, jax.random.key(2))  # begins in the middle of episodes
    together = jax.jit(lambda model, u, **call: model(u, **call))
    state = world[-1]
    right = together(model, rollout.u, state=state, resets=rollout.start)
    wrong = together(model, rollout.u, state=state)
    differences[name] = [float(jnp.abs(y - rollout.y).max()) for y in (right, wrong)]
    print(
        f"{name}: {int(rollout.start.sum())} episodes start in {N} rollouts; largest difference "
        f"with resets {differences[name][0]:.0e}, without {differences[name][1]:.0e}"
    )
    assert differences[name][0] < 1e-5 < 1e-3 < differences[name][1]

# %% [markdown]
# The rest is PPO. Generalised advantage estimation stops at the end of an episode. The optimiser
# takes four steps per rollout, and each of them computes all 8,192 outputs in one call of the
# model.
#
# Schulman et al., "Proximal Policy Optimization Algorithms", 2017,
# https://arxiv.org/abs/1707.06347.

# %%
UPDATES, EPOCHS, DISCOUNT, TRACE, CLIP = 100, 4, 0.99, 0.95, 0.2


def advantages(rollout, next_value):
    """Generalised advantage estimation, backward in time."""

    def back(carry, step):
        advantage, next_value = carry
        reward, alive, value = step
        error = reward + DISCOUNT * alive * next_value - value
        advantage = error + DISCOUNT * TRACE * alive * advantage
        return (advantage, value), advantage

    value = split_output(rollout.y)[1]
    steps = jax.tree.map(jnp.transpose, (rollout.reward, 1.0 - rollout.done, value))
    start = (jnp.zeros_like(next_value), next_value)
    return jax.lax.scan(back, start, steps, reverse=True)[1].T


def loss_of(model, state, rollout, advantage):
    def take(log_p):
        return jnp.take_along_axis(log_p, rollout.action[..., None], axis=-1)[..., 0]

    old_log_p, old_value = split_output(rollout.y)
    log_p, value = split_output(model(rollout.u, state=state, resets=rollout.start))
    ratio = jnp.exp(take(log_p) - take(old_log_p))
    scaled = (advantage - advantage.mean()) / (advantage.std() + 1e-6)
    gain = jnp.minimum(ratio * scaled, jnp.clip(ratio, 1 - CLIP, 1 + CLIP) * scaled)
    entropy = -(jnp.exp(log_p) * log_p).sum(-1)
    error = value - old_value - advantage
    return (0.5 * error**2 - gain - 0.01 * entropy).mean()


def trainer(name):
    """Returns a function that trains an agent from a seed, to parameters and mean returns."""
    model = new_model(name, 0)
    graphdef = nnx.graphdef(model)
    rates = {"ssm": 1e-3, "regular": 3e-3}
    groups = {
        group: optax.adam(optax.linear_schedule(rate, 0.0, UPDATES * EPOCHS))
        for group, rate in rates.items()
    }
    optimizer = optax.chain(
        optax.clip_by_global_norm(0.5), optax.multi_transform(groups, param_labels(model))
    )

    def update(carry, key):
        parameters, optimizer_state, world = carry
        model, state = nnx.merge(graphdef, parameters), world[-1]
        world, rollout = act(model, world, key)
        _, u, done, last_state = world
        next_value = split_output(model.step(u, last_state)[0])[1]
        advantage = advantages(rollout, jnp.where(done, 0.0, next_value))

        def learn(carry, _):
            parameters, optimizer_state = carry
            gradients = jax.grad(
                lambda parameters: loss_of(
                    nnx.merge(graphdef, parameters), state, rollout, advantage
                )
            )(parameters)
            updates, optimizer_state = optimizer.update(gradients, optimizer_state, parameters)
            return (optax.apply_updates(parameters, updates), optimizer_state), None

        (parameters, optimizer_state), _ = jax.lax.scan(
            learn, (parameters, optimizer_state), length=EPOCHS
        )
        mean_return = rollout.reward.sum() / jnp.maximum(rollout.done.sum(), 1)
        return (parameters, optimizer_state, world), mean_return

    def train(parameters, key):
        world = new_world(nnx.merge(graphdef, parameters), key)
        carry = parameters, optimizer.init(parameters), world
        (parameters, _, _), returns = jax.lax.scan(update, carry, jax.random.split(key, UPDATES))
        return parameters, returns

    return graphdef, train


# %% [markdown]
# ## Training
#
# Environment, agent and optimiser are one JAX program, so `jax.vmap` trains from three seeds
# together.

# %%
SEEDS = 3
trained, returns = {}, {}
for name in LAYERS:
    graphdef, train = trainer(name)
    initial = [
        nnx.to_pure_dict(nnx.state(new_model(name, seed), nnx.Param)) for seed in range(SEEDS)
    ]
    initial = jax.tree.map(lambda *leaves: jnp.stack(leaves), *initial)
    keys = jax.random.split(jax.random.key(3), SEEDS)
    parameters, returns[name] = jax.jit(jax.vmap(train))(initial, keys)
    trained[name] = [
        nnx.merge(graphdef, jax.tree.map(lambda leaf, i=i: leaf[i], parameters))
        for i in range(SEEDS)
    ]

figure, ax = plt.subplots(figsize=(8, 3.6), layout="constrained")
steps = np.arange(1, UPDATES + 1) * N * STEPS
for i, (name, curves) in enumerate(returns.items()):
    smooth = [np.convolve(curve, np.ones(5) / 5, "valid") for curve in np.asarray(curves)]
    for curve in smooth:
        ax.plot(steps[4:] / 1000, curve, color=f"C{i}", linewidth=0.7, alpha=0.5)
    ax.plot(steps[4:] / 1000, np.mean(smooth, axis=0), color=f"C{i}", linewidth=2, label=name)
ax.axhline(2 * best - 1, color="black", linestyle=":", label="counting all hints")
ax.axhline(0, color="grey", linestyle="--", label="no memory")
ax.set(xlabel="steps of the environments, thousands", ylabel="mean return", ylim=(-1, 1))
ax.legend(loc="lower right")
plt.show()
final = {name: np.asarray(curves)[:, -20:].mean(axis=1) for name, curves in returns.items()}
for name, values in final.items():
    print(f"{name}: return in the last 20 updates {values.round(2)} of {2 * best - 1:.2f}")
assert (final["S5"] > 0.75).all(), final

# %% [markdown]
# Thin lines are seeds, thick lines their means. Both agents come close to the return of counting.
# They differ in how they learn from a rollout: an S5 with resets is a linear scan, which an
# accelerator runs in parallel, while the steps of a GRU must follow each other.
#
# ## What the agent remembers
#
# The first plot shows the hints of consecutive episodes: right minus left, counted from the start
# of each. The second shows what the trained S5 would prefer if the corridor ended here, as a
# difference of two logits. For this, every state takes one more step, with the observation of a
# junction. The preference follows the count and starts afresh in every maze. A turn goes wrong
# where the count is close to a draw, or where most of the hints were wrong.

# %%
model = trained["S5"][0]
world = new_world(model, jax.random.key(4))
_, rollout = jax.jit(act)(model, world, jax.random.key(5))


@jax.jit
def preferences(model, rollout):
    junction = jnp.tile(jnp.array([0.0, 1.0]), (N, 1))

    def step(state, inputs):
        u, start = inputs
        _, state = model.step(u, choose(start, model.init_state((N,)), state))
        y, _ = model.step(junction, state)
        return state, y[:, RIGHT] - y[:, LEFT]

    steps = jnp.moveaxis(rollout.u, 1, 0), rollout.start.T
    return jax.lax.scan(step, model.init_state((N,)), steps)[1].T


wrong = rollout.done & (rollout.reward < 0)
maze = int((rollout.done.sum(axis=1) * wrong.any(axis=1)).argmax())  # many episodes, one lost
preference = np.asarray(preferences(model, rollout))[maze]
u, start, reward, done = (
    np.asarray(x[maze]) for x in (rollout.u, rollout.start, rollout.reward, rollout.done)
)
episodes = np.split(np.arange(STEPS), np.flatnonzero(start)[1:])
count = np.concatenate([np.cumsum(u[episode, 0]) for episode in episodes])

figure, axes = plt.subplots(2, 1, figsize=(10, 4), layout="constrained", sharex=True)
for ax, values in zip(axes, (count, preference), strict=True):
    ax.axhline(0, color="black", linewidth=0.6)
    for episode in episodes:
        ax.axvline(episode[0], color="grey", linestyle=":", linewidth=1)
        ax.plot(episode, values[episode], color="C0")
for right, label, colour in ((True, "correct turn", "C2"), (False, "wrong turn", "C3")):
    t = np.flatnonzero(done & ((reward > 0) == right))
    axes[1].plot(t, preference[t], "o", color=colour, label=label)
axes[0].set(ylabel="right − left hints")
axes[1].set(ylabel="preference for right", xlabel="step of the rollout")
figure.legend(*axes[1].get_legend_handles_labels(), loc="outside right upper")
plt.show()
agreement = np.corrcoef(count, preference)[0, 1]
print(f"correlation of count and preference: {agreement:.2f}")
assert agreement > 0.8

# %% [markdown]
# ## Longer corridors
#
# No corridor in training had more than 100 steps. Here, corridors have up to 400. The agents are
# causal and need not act on the way, so one call on whole sequences of observations gives their
# decisions at the junctions.

# %%
lengths, mazes = np.array([25, 50, 100, 200, 400]), 256
side = np.where(np.arange(mazes) < mazes // 2, -1, 1)
true = jax.random.bernoulli(jax.random.key(6), TRUE_HINTS, (len(lengths), mazes, 401))
hints = jnp.where(true, side[:, None], -side[:, None])
at_end = jnp.arange(401) == lengths[:, None, None]
u = jnp.stack([jnp.where(at_end, 0.0, hints), jnp.broadcast_to(at_end, hints.shape)], axis=-1)
decide = jax.jit(lambda model: model(u)[jnp.arange(len(lengths)), :, lengths])

figure, ax = plt.subplots(figsize=(6, 3.4), layout="constrained")
ax.axvspan(SHORTEST, LONGEST, color="0.92", label="lengths in training")
for i, name in enumerate(LAYERS):
    logits = np.stack([decide(model) for model in trained[name]])
    success = ((logits[..., RIGHT] > logits[..., LEFT]) == (side > 0)).mean(axis=-1)
    ax.plot(lengths, success.T, color=f"C{i}", linewidth=0.7, alpha=0.5)
    ax.plot(lengths, success.mean(axis=0), "o-", color=f"C{i}", label=name)
    print(name, dict(zip(lengths.tolist(), success.mean(axis=0).round(3).tolist(), strict=True)))
ax.plot(lengths, success_of_counting(lengths), "k:", label="counting all hints")
ax.set(xscale="log", xlabel="length of the corridor", ylabel="correct turns", ylim=(0.5, 1.02))
ax.set_xticks(lengths, lengths)
ax.minorticks_off()
ax.legend(loc="lower right")
plt.show()

# %% [markdown]
# Both agents still count at twice the length of training. At four times the length, counts are
# larger than any in training, and some of the agents make mistakes that counting would not.
#
# The task decides which layer suits it. Counting is linear, as S5 is. A cue that is shown once, at
# the start of corridors of 40 to 200 steps, is for a gate to keep: in a trial with one seed and one
# block, as here, the GRU learned this task in 40 updates of 32 × 512 steps, and S5 did not in 200.
