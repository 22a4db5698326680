"""How far it is: a moving bar on a terminal, plain lines elsewhere, always on standard error."""

import sys
import time
from collections.abc import Hashable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from metanas.api import Show
from metanas.commands.wording import half_width

FREQUENT = ("steps", "baseline", "answers", "round", "weights", "darts")
PAUSE = 10.0
"""Seconds between two plain lines on what is frequent."""


@contextmanager
def make_show() -> Iterator[Show]:
    """Gives the function that events of a run are told to."""
    if not sys.stderr.isatty():
        yield _plain()
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description:45}"), BarColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as progress:
        bars: dict[Hashable, Any] = {}

        def show(event: dict[str, Any]) -> None:
            text = describe(event)
            if event["event"] in ("method", "note", "generation"):
                progress.console.print(text)
            elif text:
                name = _work(event)
                if name not in bars:
                    bars[name] = progress.add_task("", total=1.0)
                progress.update(bars[name], completed=event["done"], description=text)
                if event["event"] == "answers" and event["done"] == 1:
                    progress.remove_task(bars.pop(name))  # its line comes

        yield show


def describe(event: dict[str, Any]) -> str:
    """One line on an event, empty for one that says nothing new."""
    match event["event"]:
        case "steps":
            return f"{event['phase']}: step {event['step']}, query accuracy {event['accuracy']:.1%}"
        case "generation":
            return f"generation {event['generation']}: best {event['best']:.1%}; predictor {event['predictor']['why']}"
        case "baseline":
            return f"baseline {event['network']}: step {event['step']}, query accuracy {event['accuracy']:.1%}"
        case "answers":
            return f"{event['method']}: {event['answered']} of {event['jobs']} episodes"
        case "round":
            best = "none that did not fail" if event["best"] is None else f"best {event['best']:.4g}"
            return f"{event['evaluations']:g} evaluations: {best}"
        case "weights":
            return f"shared weights: step {event['step']}"
        case "darts":
            return f"DARTS: step {event['step']}, {event['skips'][-1] if event['skips'] else 0} skip connections"
        case "point":
            accuracy = "failed" if event["accuracy"] is None else f"accuracy {event['accuracy']:.1%}"
            return f"scaling, point {event['point']}: growth {event['growth']:.2f}, {accuracy}"
        case "note":
            return str(event["text"])
        case "method":
            return f"{event['test']}, {event['method']}: {event['accuracy']:.2%}{half_width(event['interval'])}"
    return ""


def _work(event: Mapping[str, Any]) -> Hashable:
    """What an event's share of time is of."""
    return event.get("test"), event.get("method"), event.get("network")


def _plain() -> Show:
    last = [0.0]
    begun: dict[Hashable, float] = {}

    def show(event: dict[str, Any]) -> None:
        text = describe(event)
        now = time.monotonic()
        if not text or (event["event"] in FREQUENT and now - last[0] < PAUSE):
            return
        last[0] = now
        if done := event.get("done"):
            started = begun.setdefault(_work(event), now - event.get("seconds", 0.0))
            text += f", {done:.0%}, ETA {(now - started) * (1 - done) / done:.0f} s"
        print(text, file=sys.stderr, flush=True)

    return show
