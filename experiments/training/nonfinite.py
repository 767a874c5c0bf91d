"""Diagnosis of non-finite steps: data, layer and parameter."""

from collections.abc import Iterable
from typing import NamedTuple

import jax
import numpy as np

from experiments.training.metrics import BadSteps
from experiments.training.setup import Setup
from experiments.training.steps import Leaves
from experiments.training.watch import Path, Probe

FORWARD, BACKWARD = 0, 1
INPUTS, OUTPUTS = 0, 1


class Report(NamedTuple):
    """Diagnosis of a non-finite step."""

    text: str
    lasting: bool
    """Whether parameters are not finite, so that no later step can be finite."""


def investigate(setup: Setup, leaves: Leaves, bad: BadSteps, *, position: int) -> Report:
    """Repeats a non-finite step, and finds where its values stop being finite.

    ``leaves`` is the state before the step, or a later one, which may not reproduce it;
    ``position`` is the index of the step's batch.
    """
    batch = next(setup.on_device("train", start=position))
    probe = jax.device_get(setup.steps.probe(leaves, batch, bad.step))
    text = (
        f"Step {bad.step + 1}: the loss is {bad.loss}, the gradient norm {bad.grad_norm}, "
        f"for the training examples {probe.indices.tolist()}."
    )
    return Report(" ".join([text, *explain(probe)]), bool(_bad_parameters(probe)))


def explain(probe: Probe) -> list[str]:
    """Describes what is not finite, in the order of the computation."""
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
        sentences.append("The examples are finite; the inputs that the task computes are not.")
    elif not found[()][OUTPUTS, FORWARD]:
        sentences += _about_loss(probe) or _about_gradients(probe)
    return sentences or [
        "Repeated now, the step is finite. Either later steps have changed the parameters, which "
        "--on-nan=stop and rollback prevent, or rounding makes the difference."
    ]


def name(path: Path) -> str:
    """Returns a path in Python syntax, such as ``blocks[2].layer``."""
    text = "".join(f"[{key}]" if isinstance(key, int) else f".{key}" for key in path)
    return text.removeprefix(".")


def _about_tokens(probe: Probe) -> list[str]:
    if probe.tokens is None or not probe.tokens[0].any():
        return []
    examples, first, token = probe.tokens
    where = _place(probe, examples, first)
    return [f"The data have tokens outside the model's vocabulary: {token} in {where}."]


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
    """Describes a non-finite loss; empty if it is finite."""
    text = "The outputs of the model are finite; the loss that the task computes is not."
    return [] if np.isfinite(probe.means["loss"]) else [text]


def _about_gradients(probe: Probe) -> list[str]:
    """Describes non-finite gradients; empty if all gradients and their norm are finite."""
    gradients = probe.gradients
    bad = [path for path, x in gradients.items() if not np.isfinite(x)]
    if not bad and np.isfinite(probe.grad_norm):
        return []
    if not bad:
        largest = max(gradients, key=gradients.__getitem__)
        return [
            "Loss and gradients are finite; the squares in the norm overflow. The gradient of "
            f"{name(largest)} is the largest, up to {gradients[largest]:.3g}."
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
    layer = "The loss is finite; its gradient with respect to the model's outputs is not."
    if origin is not None:
        module = _describe(probe, origin)
        layer = f"The loss is finite. First bad layer in the backward pass: {module}."
    return [layer, f"First bad parameter: {name(first)}, whose gradient is not finite."]


def _bad_parameters(probe: Probe) -> list[Path]:
    """Returns the parameters that are not finite, in the order of their use."""
    order = [path for path, _ in probe.calls]
    bad = [path for path, x in probe.parameters.items() if not np.isfinite(x)]
    return sorted(bad, key=lambda path: max(i for i, m in enumerate(order) if _is_part(path, m)))


def _first(candidates: Iterable[Path]) -> Path | None:
    """Returns the first candidate that contains no other candidate."""
    paths = list(candidates)
    innermost = [a for a in paths if not any(a != b and _is_part(b, a) for b in paths)]
    return innermost[0] if innermost else None


def _is_part(path: Path, module: Path) -> bool:
    return path[: len(module)] == module


def _describe(probe: Probe, module: Path) -> str:
    kind = dict(probe.calls)[module]
    return f"{name(module)} ({kind})" if module else f"the model itself ({kind}), outside its parts"
