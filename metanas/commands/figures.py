"""The report's charts as inline SVG: the same data give the same bytes."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from io import StringIO
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, MaxNLocator, PercentFormatter

from metanas.strategies.pareto import pareto_front

OURS, OTHERS, ACCENT, SHADE = "#1f5fa8", "#7b8794", "#c2410c", "#e8eef6"
STYLE: Any = {
    "svg.fonttype": "none",  # text stays text
    "text.parse_math": False,  # a name may hold a dollar sign
    "font.size": 10,
    "font.family": "sans-serif",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": OTHERS,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e4e7eb",
    "legend.frameon": False,
}


@dataclass(frozen=True)
class Point:
    """A measured architecture: mean accuracy (fraction) over the episodes of one generation."""

    generation: int
    accuracy: float
    params: int
    macs: int


@dataclass(frozen=True)
class Step:
    """A line of the training log; `seconds` since the start."""

    phase: str
    seconds: float
    loss: float
    accuracy: float


@dataclass(frozen=True)
class Judgement:
    """What the predictor said in one generation: pairs (predicted, measured), and its rank correlation so far."""

    generation: int
    pairs: tuple[tuple[float, float], ...]
    tau: float | None
    used: bool


@dataclass(frozen=True)
class GeneEffect:
    """What the value of one gene adds to the predicted accuracy, over the mean of its other values.

    `measured` holds what the search measured of it: of each swap for another value, what the gene's own was predicted
    and what it was measured to add.
    """

    name: str
    effect: float
    measured: tuple[tuple[float, float], ...] = ()


def comparison(methods: Sequence[str], means: Sequence[float], halves: Sequence[float]) -> str:
    """Accuracies with their 95% intervals, one row a method; the first is ours."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(8.4, 0.6 + 0.34 * len(methods)), layout="constrained")
        axes = figure.subplots()
        for row, (mean, half) in enumerate(zip(means, halves, strict=True)):
            axes.errorbar(mean, row, xerr=half, fmt="o", capsize=4, color=OTHERS if row else OURS)
        axes.axvline(means[0], color=OURS, linewidth=0.8, linestyle=":")
        axes.set_yticks(range(len(methods)), methods)
        axes.set_ylim(len(methods) - 0.5, -0.5)
        axes.grid(axis="y", visible=False)
        axes.xaxis.set_major_formatter(PercentFormatter(1))
        return _svg(figure, "Accuracy of every method with its 95% interval")


def accuracy_against_cost(measured: Sequence[Point], population: Sequence[Point], chosen: Point) -> str:
    """All measurements, the last population and its Pareto front, against operations and against parameters."""
    generations = sorted({point.generation for point in measured})
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(9.6, 4.4), layout="constrained")
        macs, params = figure.subplots(1, 2, sharey=True)
        for axes, name in ((macs, "macs"), (params, "params")):
            for number, generation in enumerate(generations):
                own = [point for point in measured if point.generation == generation]
                axes.scatter(
                    [getattr(point, name) for point in own], [point.accuracy for point in own],
                    s=16, **_shade(number, generation, generations),
                )  # fmt: skip
            costs = np.array([getattr(point, name) for point in population], dtype=float)
            accuracies = np.array([point.accuracy for point in population])
            front = sorted(pareto_front(np.column_stack([accuracies, -costs])), key=lambda i: costs[i])
            axes.step(costs[front], accuracies[front], where="post", color=ACCENT, linewidth=1.2, label="Pareto front")
            axes.scatter(costs, accuracies, s=46, facecolors="none", edgecolors=ACCENT, label="last population")
            axes.scatter(
                getattr(chosen, name), chosen.accuracy, s=150, marker="*", color=ACCENT, zorder=3, label="chosen"
            )
            axes.set_xscale("log")
            _few_plain_ticks(axes, [*costs, *(getattr(point, name) for point in measured)])
        macs.set_xlabel("multiply-accumulates")
        params.set_xlabel("parameters")
        macs.set_ylabel("accuracy on validation episodes")
        macs.yaxis.set_major_formatter(PercentFormatter(1))
        figure.legend(*macs.get_legend_handles_labels(), loc="outside upper center", ncols=5)
        return _svg(figure, "Accuracy against multiply-accumulates and parameters")


def learning_curves(steps: Sequence[Step], generations: Sequence[tuple[float, float]]) -> str:
    """Loss and accuracy by time; `generations` are (seconds, best accuracy on validation episodes) of each."""
    minutes = steps[-1].seconds > 180
    unit = 60 if minutes else 1
    times = np.array([step.seconds for step in steps]) / unit
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(9.6, 3.6), layout="constrained")
        loss, accuracy = figure.subplots(1, 2)
        loss.plot(times, [step.loss for step in steps], color=OURS)
        loss.set_ylabel("loss on training queries")
        loss.set_ylim(bottom=0)
        accuracy.plot(times, [step.accuracy for step in steps], color=OURS, label="training queries")
        accuracy.plot(
            [seconds / unit for seconds, _ in generations], [best for _, best in generations],
            "D", color=ACCENT, markersize=5, label="best of a generation, validation",
        )  # fmt: skip
        accuracy.set_ylabel("accuracy")
        accuracy.yaxis.set_major_formatter(PercentFormatter(1))
        accuracy.legend(loc="lower right")
        for axes in (loss, accuracy):
            _mark_phases(axes, steps, unit)
            for seconds, _ in generations:
                axes.axvline(seconds / unit, color=OTHERS, linewidth=0.8, linestyle=":")
            axes.set_xlabel("minutes" if minutes else "seconds")
            axes.set_xlim(left=0)
        return _svg(figure, "Loss and accuracy by time")


def predictor_quality(judgements: Sequence[Judgement], floor: float) -> str:
    """Predicted against measured, and the rank correlation by generation beside the floor of trust."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(9.6, 3.8), layout="constrained")
        pairs, taus = figure.subplots(1, 2)
        everything = np.array([pair for judgement in judgements for pair in judgement.pairs])
        for number, judgement in enumerate(judgements):
            shade = _shade(number, judgement.generation, judgements)
            pairs.scatter(*zip(*judgement.pairs, strict=True), s=22, **shade)
        ends = [everything.min(), everything.max()]
        pairs.plot(ends, ends, color=OTHERS, linewidth=0.8, linestyle=":")
        pairs.set_xlabel("predicted: accuracy above the default network")
        pairs.set_ylabel("measured")
        for axis in (pairs.xaxis, pairs.yaxis):
            axis.set_major_formatter(PercentFormatter(1))
            axis.set_major_locator(MaxNLocator(6))
        pairs.legend(loc="upper left")
        judged = [(j.generation, j.tau, j.used) for j in judgements if j.tau is not None]
        taus.plot([g for g, _, _ in judged], [tau for _, tau, _ in judged], color=OURS, linewidth=1)
        for used, colour, label in ((True, OURS, "screens offspring"), (False, "white", "stands aside")):
            at = [(g, tau) for g, tau, trusted in judged if trusted == used]
            taus.scatter(
                [g for g, _ in at], [tau for _, tau in at], s=40, color=colour, edgecolors=OURS, label=label, zorder=3
            )
        taus.axhline(floor, color=ACCENT, linewidth=1, linestyle="--", label="floor")
        taus.set_xlabel("generation")
        taus.set_ylabel("Kendall's tau on unseen architectures")
        taus.set_ylim(min(-0.1, *(tau for _, tau, _ in judged), floor) - 0.1, 1)
        taus.xaxis.set_major_locator(MaxNLocator(integer=True))
        taus.legend(loc="upper left", ncols=3, fontsize=9)
        return _svg(figure, "Predicted against measured accuracy, and rank correlation by generation")


def effects_chart(effects: Sequence[GeneEffect]) -> str:
    """What raises and what lowers the prediction, one bar a gene."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(8.4, 0.8 + 0.26 * len(effects)), layout="constrained")
        axes = figure.subplots()
        values = [effect.effect for effect in effects]
        axes.barh(range(len(effects)), values, color=[OURS if value >= 0 else ACCENT for value in values])
        dots = np.array([(measured, row) for row, effect in enumerate(effects) for _, measured in effect.measured])
        if len(dots):
            axes.scatter(
                dots[:, 0], dots[:, 1], s=22, facecolors="white", edgecolors=OTHERS, label="measured", zorder=3
            )
            axes.legend()
        axes.set_yticks(range(len(effects)), [effect.name for effect in effects])
        axes.invert_yaxis()
        axes.grid(axis="y", visible=False)
        axes.xaxis.set_major_formatter(PercentFormatter(1))
        axes.set_xlabel("accuracy above that with the gene's other values, as predicted")
        return _svg(figure, "What each gene of the chosen architecture adds to its predicted accuracy")


def _shade(number: int, generation: int, generations: Sequence[object]) -> dict[str, Any]:
    """Later generations are darker; the first and the last stand in the legend."""
    last = len(generations) - 1
    label = f"generation {generation}" if number in (0, last) else None
    return {"color": matplotlib.colormaps["Blues"]((number + 2) / (last + 2)), "label": label}


def _few_plain_ticks(axes: Axes, costs: Sequence[float]) -> None:
    """Numbers that a person reads, also where the range is less than a power of ten."""
    low, high = min(costs), max(costs)
    ticks = np.geomspace(low, high, 5) if high > low else np.array([low])
    digits = 10.0 ** (np.floor(np.log10(ticks)) - 1)
    axes.set_xticks(np.unique(np.round(ticks / digits) * digits))
    axes.set_xticks([], minor=True)
    axes.xaxis.set_major_formatter(EngFormatter())


def _mark_phases(axes: Axes, steps: Sequence[Step], unit: float) -> None:
    """Shades what comes before the generations, and names it."""
    begin = 0.0
    for phase, shade in (("warmup", SHADE), ("widening", "#f3f6fa")):
        ends = [step.seconds / unit for step in steps if step.phase == phase]
        if ends:
            axes.axvspan(begin, ends[-1], color=shade, linewidth=0, zorder=0)
            axes.text(
                (begin + ends[-1]) / 2, 1.01, {"warmup": "warm-up"}.get(phase, phase), ha="center", va="bottom",
                fontsize=9, color=OTHERS, transform=axes.get_xaxis_transform(),
            )  # fmt: skip
            begin = ends[-1]


def _svg(figure: Figure, label: str) -> str:
    """The figure as one <svg> element; its ids are those it refers to itself, and no other figure's."""
    text = StringIO()
    with matplotlib.rc_context({"svg.hashsalt": label}):
        figure.savefig(text, format="svg", metadata={"Date": None, "Creator": None})
    svg = re.sub(r' id="[A-Za-z0-9.]+_\d+"|<metadata>.*</metadata>', "", text.getvalue(), flags=re.DOTALL)
    return svg[svg.index("<svg") :].replace("<svg", f'<svg role="img" aria-label="{escape(label)}"', 1)
