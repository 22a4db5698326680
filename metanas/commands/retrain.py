"""`metanas predictor retrain` and its neighbours: the predictor anew, from the evaluations of several runs."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from metanas.api import Architecture, Evaluation
from metanas.assembly import make_space
from metanas.errors import MetanasError
from metanas.measuring.features import ArchitectureFeatures
from metanas.run import RunFolder
from metanas.spaces.space import Space
from metanas.store import NewerStore, Store
from predictors.choice import QUICK, RetrainReport, retrain
from predictors.data import Data
from predictors.drift import Drift, drift
from predictors.saved import Saved
from predictors.versions import Comparison, Versions

Row = tuple[Architecture, str, float]
"""An architecture, a task, and its mean accuracy there less that of the space's default on the same episodes."""


@dataclass(frozen=True)
class Retrained:
    """A new version: its report, how it compares with the one before, and whether it is in use now."""

    version: int
    report: RetrainReport
    refused: tuple[str, ...]  # a sentence for each part of a store that was left out
    comparison: Comparison | None
    promoted: bool
    why: str


def retrain_predictor(
    runs: Sequence[RunFolder], stores: Sequence[str] = (), models: Sequence[str] = QUICK
) -> Retrained:
    """A new version of the first run's predictor, from its own evaluations, the other runs' and those of more stores.

    It is put in use unless it is worse than the present one. Evaluations of another space, and stores of a newer
    version, are left out and named. Raises MetanasError when too little is left.
    """
    first = runs[0]
    rows, refused = gather(first, [*map(_url, runs), *stores])
    data, space = _data(first, rows), make_space(first.config).name
    fitted, report = retrain(data, first.config.seed, models)
    versions = Versions(first.path)
    versions.adopt()
    saved = Saved(report.model, first.config.seed, space, data)
    number = versions.add(saved, fitted, _card(report, [*map(_url, runs), *stores], refused))
    try:
        comparison = versions.promote(number, first.config.seed)
    except MetanasError as error:
        return Retrained(number, report, tuple(refused), None, False, str(error))
    return Retrained(number, report, tuple(refused), comparison, True, f"version {number} is in use")


def watch(run: RunFolder, stores: Sequence[str]) -> Drift:
    """How far the evaluations of `stores` are from what the run's predictor in use expects."""
    versions = Versions(run.path)
    versions.adopt()
    if not versions.history:
        raise MetanasError(f"'{run.path}' has no predictor; write one with `metanas predictor retrain`.")
    rows, _ = gather(run, stores)
    return drift(versions.read(versions.history[-1]), _data(run, rows))


def gather(run: RunFolder, stores: Sequence[str]) -> tuple[list[Row], list[str]]:
    """What `stores` say of the run's space, and a sentence for each part of them that is left out."""
    space, refused, rows = make_space(run.config), [], []
    for url in stores:
        try:
            with Store(url) as store:
                by_run = [store.evaluations(run=name) for name in store.runs()]
        except NewerStore as error:
            refused.append(f"{error} It is left out.")
            continue
        evaluations = [evaluation for own in by_run for evaluation in own]
        if not evaluations:
            refused.append(f"the store '{url}' holds no evaluations; look at its URL, or search first.")
        for other in sorted({e.space for e in evaluations} - {space.name}):
            count = sum(e.space == other for e in evaluations)
            refused.append(
                f"the store '{url}' holds {count} evaluations of the space '{other}', this run's is '{space.name}': "
                "they are left out; retrain the predictor of a run of that space with them."
            )
        known = {e.architecture for e in evaluations if e.space == space.name}
        odd = {architecture for architecture in known if not _belongs(space, architecture)}
        if odd:
            refused.append(
                f"the store '{url}' holds {len(odd)} architectures of another version of the space '{space.name}', "
                f"such as {min(odd)}: they are left out; give stores of runs with this run's space.options."
            )
        for own in by_run:
            usable = [e for e in own if e.space == space.name and e.architecture not in odd]
            rows += observed(usable, space.default)
    if not rows:
        raise MetanasError(" ".join(refused) or f"there are no evaluations in {', '.join(stores)}; search first.")
    return rows, refused


def observed(evaluations: Sequence[Evaluation], anchor: Architecture) -> list[Row]:
    """Mean differences to `anchor` within one run, one a pair of architecture and task.

    Episodes and weights differ between generations; the difference to one architecture on the same episode and the same
    weights can be compared.
    """
    anchors = {
        (e.weights_version, e.generation, e.seed, e.split, e.episode): e.accuracy
        for e in evaluations
        if e.architecture == anchor and e.accuracy is not None
    }
    found: dict[tuple[Architecture, str], list[float]] = defaultdict(list)
    for e in evaluations:
        at = (e.weights_version, e.generation, e.seed, e.split, e.episode)
        if e.accuracy is not None and (base := anchors.get(at)) is not None:
            found[e.architecture, e.task].append(e.accuracy - base)
    return [(architecture, task, float(np.mean(gaps))) for (architecture, task), gaps in found.items()]


def _belongs(space: Space, architecture: Architecture) -> bool:
    try:
        space.check(architecture)
    except MetanasError:
        return False
    return True


def _url(run: RunFolder) -> str:
    return f"sqlite:///{run.path / 'store.sqlite'}"


def _data(run: RunFolder, rows: Sequence[Row]) -> Data:
    features = ArchitectureFeatures(make_space(run.config), run.config.image.size)
    different = list(dict.fromkeys(architecture for architecture, _, _ in rows))
    place = {architecture: row for row, architecture in enumerate(different)}
    table = features.table(different).take([place[architecture] for architecture, _, _ in rows])
    return Data.of(table, np.array([target for _, _, target in rows]), [task for _, task, _ in rows])


def _card(report: RetrainReport, stores: Sequence[str], refused: Sequence[str]) -> dict[str, object]:
    tau = report.predictor
    return {
        "from": list(stores),
        "left out": list(refused),
        "figures": {
            "held out": report.held_out_by,
            "tau": [tau.tau, tau.low, tau.high],
            "params": report.params.tau,
            "macs": report.macs.tau,
            "nearest": report.nearest.tau,
            "recall": report.quality.recall,
            "regret": report.quality.regret,
            "coverage": report.coverage,
            "models": report.models,
        },
    }
