"""Plots of the learning curves of a run, and of forecasts."""

from collections.abc import Sequence
from pathlib import Path

from experiments.tasks import Forecast, Task
from experiments.training.finished import load_trained
from experiments.training.forecasting import Outlook, forecast_test
from experiments.training.metrics import read_rows

MAX_PANELS = 12


def plot_run(workdir: Path, task: Task, *, batch_size: int) -> None:
    """Writes ``learning_curves.png``, and for forecasts ``forecast.png``, to a run's folder.

    The second picture has the last test window of each of the first dozen series.

    Args:
        workdir: the run's folder, with its saved model.
        task: its task.
        batch_size: series that are computed together.
    """
    plot_learning_curves(workdir, metric=task.metric)
    if isinstance(task, Forecast):
        model = load_trained(workdir).model
        outlooks = forecast_test(model, task, n_series=MAX_PANELS, batch_size=batch_size)
        plot_forecasts(outlooks, task.options.targets, workdir / "forecast.png")


def plot_learning_curves(workdir: Path, *, metric: str) -> None:
    """Plots loss and metric over the steps, for training and validation."""
    from matplotlib.figure import Figure  # slow to import

    rows = read_rows(workdir)
    figure = Figure(figsize=(9, 3.5), layout="constrained")
    measures = tuple(dict.fromkeys(("loss", metric)))
    panels = figure.subplots(1, len(measures), squeeze=False)[0]
    for axes, measure in zip(panels, measures, strict=True):
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
    figure.savefig(workdir / "learning_curves.png", dpi=120)


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
