"""Plots of the learning curves of a run, and of forecasts."""

from collections.abc import Sequence
from pathlib import Path

from experiments.training.forecasting import Outlook
from experiments.training.metrics import read_rows

MAX_PANELS = 12


def plot_learning_curves(workdir: Path, *, metric: str) -> Path:
    """Plots loss and metric over the steps, for training and validation.

    Returns:
        The path of the picture, ``learning_curves.png`` in the run's folder.
    """
    from matplotlib.figure import Figure  # slow to import

    rows = read_rows(workdir)
    figure = Figure(figsize=(9, 3.5), layout="constrained")
    for axes, measure in zip(figure.subplots(1, 2), ("loss", metric), strict=True):
        for name, label, style in (
            (measure, "training", "-"),
            (f"validation_{measure}", "validation", "o-"),
        ):
            known = [row for row in rows if row.get(name) is not None]
            steps, values = [row["step"] for row in known], [row[name] for row in known]
            axes.plot(steps, values, style, label=label, markersize=3)
        axes.set_xlabel("step")
        axes.set_ylabel(measure)
        axes.legend()
    path = workdir / "learning_curves.png"
    figure.savefig(path, dpi=120)
    return path


def plot_forecasts(outlooks: Sequence[Outlook], targets: Sequence[str], path: Path) -> None:
    """Plots context, truth if there is any, forecast and interval, for the first dozen series.

    Args:
        outlooks: the forecasts.
        targets: the names of their targets.
        path: the picture to write, of a format that Matplotlib knows.
    """
    from matplotlib.figure import Figure  # slow to import

    panels = [(outlook, j) for outlook in outlooks for j in range(len(targets))][:MAX_PANELS]
    figure = Figure(figsize=(9, 2.5 * len(panels)), layout="constrained")
    axes_of = figure.subplots(len(panels), squeeze=False)[:, 0]
    for axes, (outlook, j) in zip(axes_of, panels, strict=True):
        mean, low, high = outlook.interval
        axes.plot(outlook.past_times, outlook.past[:, j], color="0.4", label="context")
        if outlook.truth is not None:
            axes.plot(outlook.times, outlook.truth[:, j], color="0.1", label="truth")
        axes.plot(outlook.times, mean[:, j], color="C0", label="forecast")
        if low is not None and high is not None:
            band = {"color": "C0", "alpha": 0.2, "label": "quantiles 0.1 to 0.9"}
            axes.fill_between(outlook.times, low[:, j], high[:, j], **band)
        axes.set_ylabel(f"{outlook.group} {targets[j]}".strip())
        axes.legend(loc="upper left", bbox_to_anchor=(1, 1))
    figure.savefig(path, dpi=120)
