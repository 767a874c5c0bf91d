"""Plot of the learning curves of a run."""

from pathlib import Path

from experiments.training.metrics import read_rows


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
