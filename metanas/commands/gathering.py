"""What stores say of a run's space: differences to the default network, and sentences on what says nothing."""

from collections import defaultdict
from collections.abc import Callable, Container, Iterator, Sequence
from functools import lru_cache

import numpy as np

from metanas.api import Architecture, Evaluation
from metanas.assembly import make_space
from metanas.errors import MetanasError
from metanas.measuring.cost import cost
from metanas.measuring.estimation import compared, observations
from metanas.run import RunFolder
from metanas.spaces.space import Space
from metanas.store import NewerStore, Store, shown
from predictors.data import TOGETHER

Row = tuple[Architecture, str, float]
"""An architecture, a task, and its mean accuracy there less that of the space's default on the same episodes."""
Observe = Callable[[Sequence[Evaluation], Architecture], list[Row]]
"""What the evaluations of one run say of architectures, as differences to one of them."""


def observed(evaluations: Sequence[Evaluation], anchor: Architecture) -> list[Row]:
    """Mean differences to `anchor`, one a pair of architecture and task."""
    found: dict[tuple[Architecture, str], list[float]] = defaultdict(list)
    for e, own, base in compared(evaluations, anchor):
        found[e.architecture, e.task].append(own - base)
    return [(architecture, task, float(np.mean(gaps))) for (architecture, task), gaps in found.items()]


def observed_together(evaluations: Sequence[Evaluation], anchor: Architecture) -> list[Row]:
    """As a search learns: one a generation and architecture, the mean over all episodes of whatever task."""
    return [(architecture, TOGETHER, gap) for architecture, gap in observations(evaluations, anchor)]


def gather(run: RunFolder, stores: Sequence[str], observe: Observe = observed) -> tuple[list[Row], list[str]]:
    """What `stores` say of the run's space, and a sentence for each part of them that is left out."""
    space, size = make_space(run.config), run.config.image.size
    refused, rows, seen = list[str](), list[Row](), set[Evaluation]()
    for url in stores:
        try:
            with Store(url, existing=True) as store:
                by_run = [store.evaluations(run=name) for name in store.runs()]
        except NewerStore as error:
            refused.append(f"{error} It is left out.")
            continue
        evaluations = [evaluation for own in by_run for evaluation in own]
        mine = {
            e
            for e in evaluations
            if e.space == space.name and _belongs(space, size, e.architecture, e.params, e.macs, e.form)
        }
        refused += [f"the store '{shown(url)}' {what}" for what in _left_out(evaluations, space, mine, seen)]
        bare = 0
        for own in by_run:
            if {*own} & mine <= seen:
                continue
            # What was measured beside them says what new evaluations compare with, be it new or not.
            usable = [e for e in own if e in mine and (e not in seen or e.architecture == space.default)]
            bare += sum(e.accuracy is not None for e in usable) - len(list(compared(usable, space.default)))
            rows += observe(usable, space.default)
        if bare:
            refused.append(
                f"the store '{shown(url)}' holds {bare} evaluations on episodes on which the default network of the "
                "space was not measured with the same weights, so that they compare with nothing: they are left out."
            )
        seen |= mine
    if not rows:
        raise MetanasError(" ".join(refused))
    return rows, refused


def _left_out(
    evaluations: Sequence[Evaluation], space: Space, mine: Container[Evaluation], seen: Container[Evaluation]
) -> Iterator[str]:
    """What a store holds beside `mine`; `seen` are those of the stores before it."""
    if not evaluations:
        yield "holds no evaluations; look at its URL, or search first."
    for other in sorted({e.space for e in evaluations} - {space.name}):
        count = sum(e.space == other for e in evaluations)
        yield (
            f"holds {count} evaluations of the space '{other}', this run's is '{space.name}': they are left out; "
            "retrain the predictor of a run of that space with them."
        )
    if twice := sum(e in seen for e in evaluations):
        yield f"holds {twice} evaluations that were read before it: they count once."
    odd = [e for e in evaluations if e.space == space.name and e not in mine]
    if odd:
        form = f" ({odd[0].form})" if odd[0].form else ""
        yield (
            f"holds {len(odd)} evaluations of another version of the space '{space.name}', such as of "
            f"{odd[0].architecture}{form} with {odd[0].params} parameters and {odd[0].macs} multiply-accumulates: they "
            "are left out; give stores of runs with this run's space.options and image.size."
        )


@lru_cache(maxsize=65536)  # a network has as many rows as it saw episodes
def _belongs(
    space: Space, size: int, architecture: Architecture, params: int, macs: int, measured_form: str | None
) -> bool:
    """Whether the space has that architecture, and it is the network that was measured."""
    try:
        space.check(architecture)
    except MetanasError:
        return False
    own, form = cost(space, architecture, size), space.describe(architecture)
    # Stores of version 1 did not note the form.
    return (own.params, own.macs, form) == (params, macs, measured_form or form)
