"""Why a step was not finite: the data, the layer, the parameter."""

from collections.abc import Iterable
from typing import NamedTuple

import jax
import numpy as np

from experiments.build import Setup
from experiments.metrics import BadSteps
from experiments.steps import Leaves
from experiments.watch import Path, Probe

FORWARD, BACKWARD = 0, 1
INPUTS, OUTPUTS = 0, 1


class Report(NamedTuple):
    """What is known of a non-finite step."""

    text: str
    lasting: bool
    """Whether parameters are not finite, so that no later step can be."""


def investigate(setup: Setup, leaves: Leaves, bad: BadSteps, *, position: int) -> Report:
    """Repeats a non-finite step, slowly, and looks where its values stop being finite.

    Args:
        setup: the parts of the run.
        leaves: the state before the step; or a later one, which may not show it any more.
        bad: what the step's meter says.
        position: the step's place in the data.
    """
    batch = next(setup.on_device("train", start=position))
    probe = jax.device_get(setup.steps.probe(leaves, batch, bad.step))
    text = (
        f"Step {bad.step + 1}: the loss is {bad.loss}, the gradient norm {bad.grad_norm}, "
        f"for the training examples {probe.indices.tolist()}."
    )
    return Report(" ".join([text, *explain(probe)]), bool(_bad_parameters(probe)))


def explain(probe: Probe) -> list[str]:
    """Sentences that name what is not finite, in the order of the computation."""
    if sentences := _about_tokens(probe):
        return sentences
    sentences = _about_data(probe)
    if names := _bad_parameters(probe):
        sentences.append(f"First bad parameter: {name(names[0])}, not finite before the step.")
    found = probe.modules
    origin = _first(
        path
        for path, _ in probe.calls
        if found[path][OUTPUTS, FORWARD] and not found[path][INPUTS, FORWARD]
    )
    if origin is not None:
        sentences.append(
            f"First bad layer: {_describe(probe, origin)}, whose inputs are finite and whose "
            "outputs are not."
        )
        if not names:
            sentences.append(_about_parameters_of(probe, origin))
    elif found[()][INPUTS, FORWARD] and not sentences:
        sentences.append("What the task makes of the examples for the model is not finite.")
    elif not found[()][OUTPUTS, FORWARD]:
        sentences += _about_loss(probe) or _about_gradients(probe)
    return sentences or [
        "Repeated now, the step is finite: later steps have changed the parameters, which "
        "--on-nan=stop and rollback prevent, or it is a matter of rounding."
    ]


def name(path: Path) -> str:
    """As Python has it, such as ``blocks[2].layer``."""
    text = "".join(f"[{key}]" if isinstance(key, int) else f".{key}" for key in path)
    return text.removeprefix(".")


def _about_tokens(probe: Probe) -> list[str]:
    if probe.tokens is None or not probe.tokens[0].any():
        return []
    examples, first, token = probe.tokens
    where = _place(probe, examples, first)
    return [f"The data have tokens outside of the model's vocabulary: {token} in {where}."]


def _about_data(probe: Probe) -> list[str]:
    return [
        f"The data are not finite: {column} of {_place(probe, examples, first)}."
        for column, (examples, first) in probe.columns.items()
        if examples.any()
    ]


def _place(probe: Probe, examples: jax.Array, first: tuple[jax.Array, ...]) -> str:
    example, *place = (int(i) for i in first)
    where = f" at {place}" if place else ""
    others = f", and in {examples.sum() - 1} others" if examples.sum() > 1 else ""
    return f"example {probe.indices[example]}{where}{others}"


def _about_parameters_of(probe: Probe, layer: Path) -> str:
    own = {path: x for path, x in probe.parameters.items() if _is_part(path, layer)}
    if not own:
        return "All parameters are finite."
    largest = max(own, key=own.__getitem__)
    return f"Its parameters are finite; the largest is {name(largest)}, up to {own[largest]:.3g}."


def _about_loss(probe: Probe) -> list[str]:
    """Nothing, if the loss is finite."""
    if np.isfinite(probe.means["loss"]):
        return []
    return ["The outputs of the model are finite; the loss that the task makes of them is not."]


def _about_gradients(probe: Probe) -> list[str]:
    """Nothing, if all gradients and their norm are finite."""
    bad = [path for path, x in probe.gradients.items() if not np.isfinite(x)]
    if not bad and np.isfinite(probe.grad_norm):
        return []
    if not bad:
        gradients = probe.gradients
        largest = max(gradients, key=gradients.__getitem__)
        return [
            "Loss and gradients are finite; the squares in the norm overflow. The largest gradient "
            f"is that of {name(largest)}, up to {gradients[largest]:.3g}."
        ]
    found, order = probe.modules, [path for path, _ in probe.calls]
    owner = {path: max((m for m in order if _is_part(path, m)), key=len) for path in bad}
    origin = _first(
        m
        for m in reversed(order)
        if not found[m][OUTPUTS, BACKWARD] and (found[m][INPUTS, BACKWARD] or m in owner.values())
    )
    within = [path for path in bad if origin is not None and _is_part(path, origin)]
    first = max(within or bad, key=lambda path: order.index(owner[path]))
    layer = (
        "The loss is finite, but not its gradient in the outputs of the model."
        if origin is None
        else "The loss is finite. First bad layer in the backward pass: "
        f"{_describe(probe, origin)}."
    )
    return [layer, f"First bad parameter: {name(first)}, whose gradient is not finite."]


def _bad_parameters(probe: Probe) -> list[Path]:
    """Those that are not finite themselves, in the order in which they are used."""
    order = [path for path, _ in probe.calls]
    bad = [path for path, x in probe.parameters.items() if not np.isfinite(x)]
    return sorted(bad, key=lambda path: max(i for i, m in enumerate(order) if _is_part(path, m)))


def _first(candidates: Iterable[Path]) -> Path | None:
    """The first that has no other one inside."""
    paths = list(candidates)
    innermost = [a for a in paths if not any(a != b and _is_part(b, a) for b in paths)]
    return innermost[0] if innermost else None


def _is_part(path: Path, module: Path) -> bool:
    return path[: len(module)] == module


def _describe(probe: Probe, module: Path) -> str:
    kind = dict(probe.calls)[module]
    return f"{name(module)} ({kind})" if module else f"the model itself ({kind}), outside its parts"
