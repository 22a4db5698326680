"""Pictures of cells and of chains of stages, as plain SVG.

A cell is drawn in layers from left to right (Sugiyama et al. 1981): each box stands one layer after the last box that
it depends on, an arrow that spans several layers passes each of them at a place of its own, and the boxes of a layer
are ordered by the mean place of their neighbours. The label of an arrow stands in front of the box where it ends.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from itertools import pairwise
from statistics import fmean

FONT = 12.0
LINE = 24.0  # height of a line of text with its margins
GAP = 14.0  # between two things above one another
MARGIN = 12.0
TITLE = 30.0
CHANNEL = 56.0  # between two layers, where the arrows run
INK, FAINT, LINES, FILL, LABEL_FILL = "#1f2933", "#52606d", "#7b8794", "#e4ecf7", "#fff7e0"


@dataclass(frozen=True)
class Drawing:
    """A part of a picture: SVG elements that lie within (0, 0) and (width, height) in pixels."""

    width: float
    height: float
    body: str


@dataclass(frozen=True)
class Arrow:
    """From box `source` to box `target`, both keys of the boxes, with the operation's name."""

    source: int
    target: int
    label: str = ""


@dataclass
class _Place:
    """Where a box lies, or where an arrow passes a layer; its labels stand to its left."""

    layer: int
    text: str = ""
    labels: tuple[str, ...] = ()
    x: float = 0.0  # the left end, labels included
    y: float = 0.0  # the middle

    @property
    def label_width(self) -> float:
        return max((_text_width(label) for label in self.labels), default=0.0)

    @property
    def width(self) -> float:
        return self.label_width + 8 * bool(self.labels) + (_text_width(self.text) if self.text else 0.0)

    @property
    def height(self) -> float:
        return LINE * max(len(self.labels), 1) if self.text else 6.0


def svg(*drawings: Drawing) -> str:
    """The drawings below one another, as one <svg> element that shrinks to the width of its page."""
    width = max(drawing.width for drawing in drawings)
    parts, y = [], 0.0
    for drawing in drawings:
        parts.append(f'<g transform="translate(0 {y:.1f})">{drawing.body}</g>')
        y += drawing.height
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {y:.0f}" '
        f'width="{width:.0f}" height="{y:.0f}" '
        f'style="max-width:100%" font-family="sans-serif" font-size="{FONT:.0f}">'
        f'<rect width="{width:.0f}" height="{y:.0f}" fill="white"/>{"".join(parts)}</svg>'
    )


def chain(title: str, stages: Sequence[Sequence[str]]) -> Drawing:
    """Stages one after the other: a line that names each, and below it, in smaller letters, lines of settings."""
    x, y = MARGIN, TITLE
    height = 16 * max(len(lines) for lines in stages) + 12
    body = [_title(title)]
    for number, lines in enumerate(stages):
        if number:
            body.append(_line(x, y + height / 2, x + 22, y + height / 2))
            x += 26
        name, *settings = lines
        width = max(_text_width(name), *(_text_width(line, FONT - 2) for line in settings), 0)
        top = y + (height - 16 * len(lines)) / 2 + 12
        body.append(_box(x, y, width, height, FILL))
        body.append(_text(x + width / 2, top, name))
        body += [_text(x + width / 2, top + 16 * (i + 1), line, FONT - 2, FAINT) for i, line in enumerate(settings)]
        x += width
    return Drawing(x + MARGIN, y + height + MARGIN, "".join(body))


def draw_chain(stages: Sequence[Sequence[str]]) -> str:
    """A picture of a network that is one chain of stages."""
    return svg(chain("Network", stages))


def layered(title: str, boxes: Mapping[int, str], arrows: Sequence[Arrow]) -> Drawing:
    """An acyclic graph of boxes, whose keys are in topological order: every arrow leads to a larger key."""
    places, routes = _layers(boxes, arrows)
    columns = [[place for place in places if place.layer == layer] for layer in range(max(p.layer for p in places) + 1)]
    _order(columns, routes)
    x = MARGIN
    tallest = max(_height(column) for column in columns)
    for column in columns:
        width = max(place.width for place in column)
        y = TITLE + (tallest - _height(column)) / 2
        for place in column:
            place.x, place.y = x, y + place.height / 2
            y += place.height + GAP
        x += width + CHANNEL
    body = [_title(title)]
    body += [_curve(route, line) for route, line in routes]  # beneath the boxes
    body += [_node(place) for place in places if place.text]
    return Drawing(x - CHANNEL + MARGIN, TITLE + tallest + MARGIN, "".join(body))


def _layers(
    boxes: Mapping[int, str], arrows: Sequence[Arrow]
) -> tuple[list[_Place], list[tuple[list[_Place], int | None]]]:
    """The places, and for each arrow those that it leads through with the line of the label where it ends."""
    incoming: dict[int, list[Arrow]] = defaultdict(list)
    for arrow in arrows:
        incoming[arrow.target].append(arrow)
    box_places: dict[int, _Place] = {}
    for key in sorted(boxes):
        layer = max((box_places[arrow.source].layer + 1 for arrow in incoming[key]), default=0)
        labels = tuple(arrow.label for arrow in incoming[key] if arrow.label)
        box_places[key] = _Place(layer, boxes[key], labels)
    places = list(box_places.values())
    routes: list[tuple[list[_Place], int | None]] = []
    for target, ending in incoming.items():
        for line, arrow in enumerate(ending):
            first, last = box_places[arrow.source], box_places[target]
            between = [_Place(layer) for layer in range(first.layer + 1, last.layer)]
            places += between
            routes.append(([first, *between, last], line if arrow.label else None))
    return places, routes


def _order(columns: list[list[_Place]], routes: Sequence[tuple[list[_Place], int | None]]) -> None:
    """Sorts each column by the mean place of its neighbours, sweeping to the right and back a few times."""
    neighbours: dict[int, list[_Place]] = defaultdict(list)
    for route, _ in routes:
        for a, b in pairwise(route):
            neighbours[id(a)].append(b)
            neighbours[id(b)].append(a)
    for column in columns:
        for rank, place in enumerate(column):
            place.y = rank
    for _ in range(4):
        for column in [*columns[1:], *columns[-2::-1]]:
            column.sort(key=lambda place: fmean([other.y for other in neighbours[id(place)]] or [place.y]))
            for rank, place in enumerate(column):
                place.y = rank - len(column) / 2


def _height(column: Sequence[_Place]) -> float:
    return sum(place.height for place in column) + GAP * (len(column) - 1)


def _curve(route: Sequence[_Place], line: int | None) -> str:
    points = [(route[0].x + route[0].width, route[0].y)]
    points += [(place.x, place.y) for place in route[1:-1]]
    end = route[-1]
    y = end.y if line is None else end.y + LINE * (line - (len(end.labels) - 1) / 2)
    points.append((end.x - 4, y))
    path = f"M{points[0][0]:.1f} {points[0][1]:.1f}"
    for (x0, y0), (x1, y1) in pairwise(points):
        bend = min(CHANNEL, x1 - x0) * 0.6
        # Straight past the boxes of a layer, then an S between two layers.
        straight = x1 - CHANNEL
        if straight > x0:
            path += f" H{straight:.1f}"
        start = max(x0, straight)
        path += f" C{start + bend:.1f} {y0:.1f} {x1 - bend:.1f} {y1:.1f} {x1:.1f} {y1:.1f}"
    return f'<path d="{path}" fill="none" stroke="{LINES}" stroke-width="1.3"/>' + _head(*points[-1])


def _node(place: _Place) -> str:
    body = []
    left = place.x + place.width - _text_width(place.text)
    top = place.y - place.height / 2
    for line, label in enumerate(place.labels):
        y = top + line * LINE
        body.append(_box(place.x, y + 1, place.label_width, LINE - 2, LABEL_FILL))
        body.append(_text(place.x + place.label_width / 2, y + 16, label))
        body.append(_line(place.x + place.label_width, y + LINE / 2, left, y + LINE / 2, head=False))
    body.append(_box(left, top, _text_width(place.text), place.height, FILL))
    body.append(_text(left + _text_width(place.text) / 2, place.y + 4, place.text))
    return "".join(body)


def _text_width(text: str, size: float = FONT) -> float:
    return 0.58 * size * len(text) + 14  # a little wider than any common sans-serif


def _title(title: str) -> str:
    return f'<text x="{MARGIN:.0f}" y="19" font-weight="bold" fill="{INK}">{escape(title)}</text>'


def _text(x: float, y: float, text: str, size: float = FONT, colour: str = INK) -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="middle" font-size="{size:.0f}" fill="{colour}">'
        f"{escape(text)}</text>"
    )


def _box(x: float, y: float, width: float, height: float, fill: str) -> str:
    return (
        f'<rect x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}" rx="5" fill="{fill}" '
        f'stroke="{LINES}" stroke-width="0.8"/>'
    )


def _line(x0: float, y0: float, x1: float, y1: float, head: bool = True) -> str:
    line = f'<path d="M{x0:.1f} {y0:.1f} L{x1:.1f} {y1:.1f}" stroke="{LINES}" stroke-width="1.3"/>'
    return line + _head(x1, y1) if head else line


def _head(x: float, y: float) -> str:
    return f'<path d="M{x + 4:.1f} {y:.1f} l-7 -4 v8 z" fill="{LINES}"/>'
