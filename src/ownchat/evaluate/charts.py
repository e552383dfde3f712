"""The curves of a training as inline SVG that follows the page's colours, light or dark; equal input, equal bytes."""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from typing import Any

# Colours that matplotlib writes and that are then replaced by the page's variables.
INK, GRID, TRAIN, TUNED = "#010203", "#010204", "#010205", "#010206"
VARIABLES = {INK: "var(--quiet)", GRID: "var(--line)", TRAIN: "var(--base)", TUNED: "var(--tuned)"}

Metrics = Sequence[dict[str, Any]]
Points = list[tuple[int, float]]


def series(metrics: Metrics, key: str) -> Points:
    """``(step, value)`` by step; of a step that was done twice (after a resume) the later value counts.

    >>> series([{"step": 2, "loss": 3.0}, {"step": 1, "loss": 4.0}, {"step": 2, "loss": 2.9}], "loss")
    [(1, 4.0), (2, 2.9)]
    """
    return sorted({line["step"]: line[key] for line in metrics if line.get(key) is not None}.items())


def loss_chart(metrics: Metrics, best_step: int | None = None) -> str:
    """Train and validation loss by step; empty when there is nothing to draw."""
    train, valid = series(metrics, "loss"), series(metrics, "validation_loss")
    if not train and not valid:
        return ""
    preferences = any("validation_accuracy" in line for line in metrics)
    figure, axes = _axes("loss of the preferences" if preferences else "loss (nats per token)")
    if train:
        axes.plot(*zip(*train, strict=True), color=TRAIN, linewidth=1.2, label="train")
    if valid:
        axes.plot(*zip(*valid, strict=True), color=TUNED, linewidth=2, marker="o", markersize=4, label="validation")
    _mark_best(axes, valid, best_step)
    axes.legend(frameon=False, labelcolor=INK, loc="upper right", fontsize=12)
    return _svg(figure, "loss", "Training and validation loss by step")


def difference_chart(metrics: Metrics, best_step: int | None = None) -> str:
    """Validation loss minus that of the base (step 0); empty without a base or without a later validation."""
    valid = series(metrics, "validation_loss")
    if len(valid) < 2 or valid[0][0] != 0:
        return ""
    steps = [step for step, _ in valid]
    differences = [loss - valid[0][1] for _, loss in valid]
    figure, axes = _axes("validation loss − base")
    axes.axhline(0, color=INK, linewidth=1, linestyle=(0, (4, 3)))
    axes.fill_between(steps, differences, 0, color=TUNED, alpha=0.14, linewidth=0)
    axes.plot(steps, differences, color=TUNED, linewidth=2, marker="o", markersize=4)
    _mark_best(axes, list(zip(steps, differences, strict=True)), best_step)
    return _svg(figure, "difference", "Validation loss minus the loss of the base by step; below zero is better")


def bits_chart(points: Points) -> str:
    """Bits per byte of the valid split by step of pre-training; empty with fewer than two points."""
    if len(points) < 2:
        return ""
    figure, axes = _axes("bits per byte")
    axes.plot(*zip(*points, strict=True), color=TUNED, linewidth=2, marker="o", markersize=4)
    return _svg(figure, "bits", "Bits per byte of the valid split by step of pre-training; lower is better")


def compare_chart(curves: Sequence[tuple[str, Points]]) -> str:
    """The validation losses of runs by step; empty when none has any."""
    drawn = [(name, points) for name, points in curves if points]
    if not drawn:
        return ""
    figure, axes = _axes("validation loss")
    for at, (name, points) in enumerate(drawn):
        look: Any = {"color": (TRAIN, TUNED, INK)[at % 3], "linestyle": ("-", "--", ":")[at // 3 % 3]}
        label = name.replace("$", r"\$")  # a name is no formula
        axes.plot(*zip(*points, strict=True), **look, linewidth=2, marker="o", markersize=4, label=label)
    axes.legend(frameon=False, labelcolor=INK, loc="upper right", fontsize=12)
    return _svg(figure, "compare", "Validation loss by step of each run")


def _axes(ylabel: str) -> tuple[Any, Any]:
    from matplotlib.figure import Figure  # not pyplot: no global state, no display

    figure = Figure(
        figsize=(5.4, 3.5), layout="constrained"
    )  # 389 px wide: legible on a phone, where it shrinks to 280
    axes = figure.add_subplot()
    axes.set_xlabel("step", color=INK, fontsize=12)
    axes.set_ylabel(ylabel, color=INK, fontsize=12)
    axes.tick_params(colors=INK, labelsize=12, length=0)
    axes.grid(axis="y", color=GRID, linewidth=1)
    axes.spines[:].set_visible(False)
    axes.patch.set_visible(False)
    figure.patch.set_visible(False)
    axes.locator_params(nbins=6)
    return figure, axes


def _mark_best(axes: Any, points: Points, best_step: int | None) -> None:
    for step, value in points:
        if step == best_step:
            axes.plot([step], [value], color=TUNED, marker="o", markersize=10, fillstyle="none")
            axes.annotate(
                "kept", (step, value), xytext=(0, 10), textcoords="offset points", ha="center", color=INK, fontsize=12
            )


def _svg(figure: Any, salt: str, title: str) -> str:
    import matplotlib

    buffer = io.StringIO()
    # Text stays text; the salt makes ids the same each time and different between the two charts of a page.
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": salt, "font.family": "sans-serif"}):
        nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
        figure.savefig(buffer, format="svg", metadata=nothing)
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>", "", svg, flags=re.S)
    svg = re.sub(r' xmlns(:\w+)?="[^"]*"', "", svg)  # HTML needs no namespaces, and no address stands in the page
    svg = re.sub(r'<g id="[^"]*"', "<g", svg)  # axes_1 in both charts: ids of a page are unique
    svg = re.sub(r" font-family: [^;]*;", "", svg)
    svg = svg.replace("xlink:href", "href")
    for colour, variable in VARIABLES.items():
        svg = svg.replace(colour, variable)
    head, _, body = svg.partition(">")
    head = re.sub(r' (width|height)="[^"]*"', "", head)
    return f'{head} class="chart" role="img" aria-label="{title}">{body}'
