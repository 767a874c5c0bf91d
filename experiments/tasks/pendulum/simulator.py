r"""A vectorised simulator of the noisy pendulum of the RKN and CRU papers.

The rod starts with zero velocity at a random angle :math:`\varphi` from its lowest position. It
follows

.. math:: \ddot\varphi = -3 g \sin\varphi - 0.1\, \dot\varphi,

with a random kick :math:`\mathcal N(0, 0.1^2)` to its velocity after every frame of 0.01 s. A frame
shows the rod, 24 by 24 pixels, behind uniform noise. The amount of noise changes slowly: it follows
a random walk in [0, 1] with two thresholds, below which nothing and above which everything is
visible. The first five frames are clear.

The published data file is made by other code, with other random numbers. There are three more
differences. The equation is integrated by one Runge-Kutta step per frame (error below 1e-6) instead
of 100 Euler steps (1e-3). The edges of the rod are smoothed in the frame itself, instead of in a
larger frame that is reduced. Noise of 1e-5 in the drawn angle, which no pixel shows, is left out.

References:
    Becker et al., "RKN", 2019, https://arxiv.org/abs/1905.07357, appendix.
    Schirmer et al., "CRU", 2022, https://arxiv.org/abs/2111.11344.
"""

from collections.abc import Callable, Sequence

import numpy as np

SIZE = 24  # pixels
ROD_LENGTH, ROD_WIDTH = SIZE * 55 / 128, SIZE * 8 / 128  # pixels
FRAME_S = 0.01
STIFFNESS = 3 * 9.81  # 1/s^2
FRICTION = 0.1  # 1/s
KICK = 0.1  # rad/s
N_CLEAR = 5
WALK = 0.2
LOW, HIGH = (0.0, 0.25), (0.75, 1.0)  # ranges of the thresholds of a sequence


def simulate(
    streams: Sequence[Sequence[int]], *, n_frames: int, n_kept: int
) -> dict[str, np.ndarray]:
    """Simulates sequences and selects some of their frames at random.

    Args:
        streams: non-negative integers; each sequence is a pure function of its stream.
        n_frames: frames of a sequence.
        n_kept: selected frames.

    Returns:
        ``image``, uint8 of shape ``(n, n_kept, 24, 24)``; ``gap``, the frames since the last
        selected one (1 for the first), float32 of shape ``(n, n_kept)``; ``target``, sine and
        cosine of the angle, float32 of shape ``(n, n_kept, 2)``.
    """
    rngs = [np.random.default_rng(stream) for stream in streams]

    def draw(one: Callable[[np.random.Generator], object]) -> np.ndarray:
        return np.array([one(rng) for rng in rngs])

    start = draw(lambda rng: rng.uniform(-np.pi, np.pi))
    kicks = draw(lambda rng: rng.normal(0, KICK, n_frames - 1))
    walk = draw(lambda rng: [rng.random(), *rng.uniform(-WALK, WALK, n_frames - 1)])
    low, high = (draw(lambda rng, bounds=bounds: rng.uniform(*bounds)) for bounds in (LOW, HIGH))
    kept = draw(lambda rng: np.sort(rng.choice(n_frames, n_kept, replace=False)))
    noise = draw(lambda rng: rng.random((n_kept, SIZE, SIZE), np.float32))
    angles = np.take_along_axis(swing(start, kicks), kept, axis=1)
    clear = np.take_along_axis(clearness(walk, low, high), kept, axis=1)
    clear = clear.astype(np.float32)[..., None, None]
    images = clear * draw_rods(angles) + (1 - clear) * noise
    return {
        "image": (255 * images).astype(np.uint8),
        "gap": np.diff(kept, prepend=kept[:, :1] - 1).astype(np.float32),
        "target": np.stack([np.sin(angles), np.cos(angles)], -1).astype(np.float32),
    }


def swing(start: np.ndarray, kicks: np.ndarray) -> np.ndarray:
    """Returns the angles at all frames.

    Args:
        start: initial angles, shape ``(n,)``.
        kicks: changes of the velocity after each step, shape ``(n, n_frames - 1)``.

    Returns:
        Shape ``(n, n_frames)``.
    """
    state = np.stack([start, np.zeros_like(start)])
    angles = [start]
    for kick in kicks.T:
        a = _rate(state)
        b = _rate(state + FRAME_S / 2 * a)
        c = _rate(state + FRAME_S / 2 * b)
        d = _rate(state + FRAME_S * c)
        state = state + FRAME_S / 6 * (a + 2 * b + 2 * c + d)
        state[1] += kick
        angles.append(state[0])
    return np.stack(angles, -1)


def clearness(walk: np.ndarray, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """Returns the visible share of each frame.

    Args:
        walk: start and steps of the random walk, shape ``(n, n_frames)``.
        low: thresholds below which nothing is visible, shape ``(n,)``.
        high: thresholds above which everything is visible, shape ``(n,)``.

    Returns:
        From 0 to 1, shape ``(n, n_frames)``.
    """
    place = [walk[:, 0]]
    for step in walk.T[1:]:
        place.append(np.clip(place[-1] + step, 0, 1))
    low, high = low[:, None], high[:, None]
    clear = np.clip((np.stack(place, -1) - low) / (high - low), 0, 1)
    clear[:, :N_CLEAR] = 1
    return clear


def draw_rods(angles: np.ndarray) -> np.ndarray:
    """Draws white rods on black: ``(*batch,)`` to ``(*batch, 24, 24)``, from 0 to 1."""
    y, x = np.mgrid[:SIZE, :SIZE].astype(np.float32) + (1 - SIZE) / 2
    sin, cos = (f(angles).astype(np.float32)[..., None, None] for f in (np.sin, np.cos))
    along, across = x * sin + y * cos, np.abs(x * cos - y * sin)
    return _share(along) * _share(ROD_LENGTH - along) * _share(ROD_WIDTH / 2 - across)


def _rate(state: np.ndarray) -> np.ndarray:
    angle, velocity = state
    return np.stack([velocity, -STIFFNESS * np.sin(angle) - FRICTION * velocity])


def _share(depth: np.ndarray) -> np.ndarray:
    """Returns the share of a pixel inside an edge, from the depth of its centre [pixels]."""
    return np.clip(depth + 0.5, 0, 1)
