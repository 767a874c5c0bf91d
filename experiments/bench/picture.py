"""Plot of time against length."""

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from experiments.bench.layers import LayerTime, Mode

MODES: tuple[Mode, Mode] = ("forward", "forward+backward")
STYLES: dict[str, dict[str, Any]] = {
    "ours": {"label": "this library", "linestyle": "-", "marker": "o"},
    "published": {"label": "published algorithm", "linestyle": ":", "marker": "x"},
    "floor": {"label": "lowest roofline floor", "linestyle": "--", "marker": ""},
}
SPACING = 1.3
"""Ratio of the heights of neighbouring labels."""


def plot_layers(times: Sequence[LayerTime], path: Path, *, title: str) -> None:
    """Plots :func:`layer_times`, forward and with gradients, on logarithmic axes, as a PNG file."""
    figure = Figure(figsize=(13, 6.5), layout="constrained")
    panels = figure.subplots(1, 2, sharey=True)
    for axes, mode in zip(panels, MODES, strict=True):
        _panel(axes, [time for time in times if time.mode == mode])
        axes.set_title(mode)
    panels[0].set_ylabel("time [ms]")
    keys = [Line2D([], [], color="black", **style) for style in STYLES.values()]
    panels[0].legend(handles=keys, loc="upper left")
    figure.suptitle(title)
    figure.savefig(path, dpi=120, format="png")


def _panel(axes: Axes, times: Sequence[LayerTime]) -> None:
    names = dict.fromkeys(time.layer for time in times)
    colours = {name: colormaps["tab10"](i) for i, name in enumerate(names)}
    ends = {}
    for name, variant in itertools.product(names, ("ours", "published")):
        curve = [time for time in times if (time.layer, time.variant) == (name, variant)]
        L, ms = [time.length for time in curve], [1e3 * time.seconds for time in curve]
        axes.loglog(L, ms, color=colours[name], markersize=4, **STYLES[variant])
        if curve and variant == "ours":
            ends[name] = (L[-1], ms[-1])
    lengths = sorted({time.length for time in times})
    floor = [1e3 * min(time.floor_s for time in times if time.length == L) for L in lengths]
    axes.loglog(lengths, floor, color="black", **STYLES["floor"])
    axes.set_xticks(lengths, [f"{L:,}" for L in lengths])
    axes.minorticks_off()
    axes.set_xlim(lengths[0] / 1.3, lengths[-1] * 3)
    axes.set_xlabel("sequence length L [steps]")
    axes.grid(alpha=0.3)
    lowest: dict[int, float] = {}
    for name, (L, ms) in sorted(ends.items(), key=lambda end: end[1][1]):
        lowest[L] = max(ms, SPACING * lowest.get(L, 0))  # moves labels apart
        at: dict[str, Any] = {"xytext": (7, 0), "textcoords": "offset points", "va": "center"}
        axes.annotate(name, (L, lowest[L]), color=colours[name], **at)
