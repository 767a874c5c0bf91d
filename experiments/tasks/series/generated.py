"""A generated series: the default of the task, so that it needs no file."""

import numpy as np

from experiments.tasks.series.table import SeriesTable

HOURS = 26 * 7 * 24


def generate_series(seed: int = 0, n: int = HOURS) -> SeriesTable:
    r"""Generates an hourly demand with a trend, two seasons and correlated noise.

    .. math:: y_t = 100 + 0.003\,t + 10 \sin\tfrac{2\pi t}{24} + 4 \cos\tfrac{4\pi t}{24}
        - 8\,[\text{weekend}] + e_t, \qquad e_t = 0.8\,e_{t-1} + 1.5\,\epsilon_t

    Args:
        seed: the seed of the noise.
        n: number of hours.
    """
    t = np.arange(n)
    times = np.datetime64("2024-01-01T00", "us") + t * np.timedelta64(1, "h")
    noise = 1.5 * np.random.default_rng(seed).normal(size=n)
    for i in range(1, n):
        noise[i] += 0.8 * noise[i - 1]
    daily = 10 * np.sin(2 * np.pi * t / 24) + 4 * np.cos(4 * np.pi * t / 24)
    demand = 100 + 0.003 * t + daily - 8.0 * (t // 24 % 7 >= 5) + noise
    remark = f"A generated series of {n:,} hours: set --data.file=FILE.csv to forecast your own."
    return SeriesTable(times, "", {"demand": demand}, np.array([0, n]), ("",), "time", (remark,))
