"""Versions of a run's predictor: kept side by side, compared on what is held out, promoted and rolled back.

`predictor.safetensors` in the run's folder is the one in use. `predictors/N/` holds version N with its card (what it
saw, features, figures, library versions), `predictors/history.json` the promoted numbers in order.
"""

import json
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
from scipy import stats

from metanas.errors import MetanasError
from metanas.files import read_json, whole, write_text
from predictors.choice import fold_taus
from predictors.conformal import FOLDS, group_folds
from predictors.data import Data
from predictors.features import Layout, Table
from predictors.predictor import Predictor
from predictors.saved import Saved, library_versions, read_predictor, save_predictor

IN_USE = "predictor.safetensors"
SIGNIFICANT = 0.05
MOST_TASKS = 20
"""Folds at most where tasks are held out: every fold is a fit of both models."""


@dataclass(frozen=True)
class Comparison:
    """Two recipes (model and data) on the rows of both, held out by task or architecture; tau (F,) of every fold.

    `p` is that of the paired t-test that the new one is worse, one-sided.
    """

    held_out_by: str
    old: tuple[float, ...]
    new: tuple[float, ...]
    difference: float
    p: float

    @property
    def worse(self) -> bool:
        """Whether the new one is to be refused."""
        return self.difference < 0 and self.p < SIGNIFICANT


class Worse(MetanasError):
    """A version was not put in use, for it is worse than the one in use."""

    def __init__(self, message: str, comparison: Comparison) -> None:
        super().__init__(message)
        self.comparison = comparison


def compare(old: Saved, new: Saved, seed: int) -> Comparison:
    """Fits both again without each fold of all that either has seen, and asks both about it.

    A fold is some tasks where both have enough of them, else some architectures. What the newer one leaves out of the
    older one's data is asked about, too, so that bad data do not judge themselves. Where they see different blocks,
    they are asked about what both can be shown: a row whose blocks one of them lacks is left out.
    Raises MetanasError for predictors of different spaces, and where nothing can be shown to both.
    """
    shared = _shared(old.data.table.layout, new.data.table.layout)
    rows = _asked(old.data, new.data, shared) if shared and old.space == new.space else []
    if not rows:
        raise MetanasError(
            f"these predictors cannot be compared: one knows the features {dict(old.data.table.layout)} of the space "
            f"'{old.space}', the other {dict(new.data.table.layout)} of '{new.space}', and no evaluation has them all; "
            "retrain on runs of one space."
        )
    data = Data.of(
        Table(np.array([row.new for row in rows]), new.data.table.layout),
        np.array([row.target for row in rows]),
        [row.pair[1] for row in rows],
    )
    seen = {"old": np.array([row.old for row in rows]), "new": data.table.values}
    place = int(old.data.held_out_by == new.data.held_out_by == "tasks")  # in a pair
    by = ("architectures", "tasks")[place]
    names = [row.pair[place] for row in rows]
    different = sorted(set(names))
    count = min(len(different), MOST_TASKS) if by == "tasks" else FOLDS
    folds = group_folds(np.array([different.index(name) for name in names]), count, seed)
    answers = {"old": np.zeros(len(data)), "new": np.zeros(len(data))}  # a constant orders nothing
    for fold in folds:
        out = {names[row] for row in fold}
        for part, saved in (("old", old), ("new", new)):
            own = [pair[place] for pair in _pairs(saved.data, shared)]
            kept = saved.data.take(np.flatnonzero([name not in out for name in own]))
            if len(kept):
                fitted = saved.make().fit(kept.table.values, kept.targets)
                answers[part][fold] = fitted.predict(seen[part][fold])[0]
    before, after = fold_taus(answers["old"], data, folds), fold_taus(answers["new"], data, folds)
    gaps = after - before
    p = float(stats.ttest_1samp(gaps, 0.0, alternative="less").pvalue) if np.ptp(gaps) > 0 else float(gaps.mean() >= 0)
    return Comparison(by, tuple(before.tolist()), tuple(after.tolist()), float(gaps.mean()), p)


Pair = tuple[str, str]
"""An architecture, named by what both predictors see of it, and a task."""


@dataclass(frozen=True)
class _Row:
    """A measurement that both are asked about, and its features (d,) as each sees them."""

    pair: Pair
    target: float
    old: np.ndarray
    new: np.ndarray


def _shared(old: Layout, new: Layout) -> tuple[str, ...]:
    """The blocks of both that name an architecture: scores and seconds may differ from one measurement to the next."""
    names = [name for name, width in old if (name, width) in new and name not in ("latency", "zero-cost", "task")]
    return tuple(name for name in names if name != "costs" or "architecture" not in names)


def _asked(old: Data, new: Data, shared: Sequence[str]) -> list[_Row]:
    """All rows of the newer data, and those of the older whose pair the newer lacks, as far as both can be shown."""
    by_old, by_new = _views(old, new, shared), _views(new, old, shared)
    have = set(_pairs(new, shared))
    rows = list(zip(_pairs(new, shared), new.targets.tolist(), strict=True))
    more = zip(_pairs(old, shared), old.targets.tolist(), strict=True)
    rows += [(pair, target) for pair, target in more if pair not in have]
    both = by_old.keys() & by_new.keys()
    return [_Row(pair, target, by_old[pair], by_new[pair]) for pair, target in rows if pair in both]


def _views(own: Data, other: Data, shared: Sequence[str]) -> dict[Pair, np.ndarray]:
    """The features of those pairs of both that whoever learned from `own` can be shown.

    Who has no block "task" sees the same of an architecture whatever the task.
    """
    told = "task" in own.table.names
    tables = [(own, own.table)]
    if set(own.table.layout) <= set(other.table.layout):
        tables.append((other, other.table.only(*own.table.names)))
    seen: dict[Pair | str, np.ndarray] = {}
    for data, table in tables:
        keys = [pair if told else pair[0] for pair in _pairs(data, shared)]
        seen.update(zip(keys, table.values, strict=True))
    pairs = [*_pairs(own, shared), *_pairs(other, shared)]
    return {pair: seen[key] for pair in pairs if (key := pair if told else pair[0]) in seen}


def _pairs(data: Data, shared: Sequence[str]) -> list[Pair]:
    names = [row.tobytes().hex() for row in data.table.only(*shared).values]
    return list(zip(names, data.tasks, strict=True))


def _read(path: Path) -> Any:
    return read_json(
        path,
        f"put it back from a copy, or remove the folder '{path.parent}' to begin anew with the predictor in use",
    )


class Versions:
    """The versions in a run's folder."""

    def __init__(self, run: Path) -> None:
        self.run, self.folder = run, run / "predictors"

    @classmethod
    def of(cls, run: Path) -> Self:
        """Those of a run that has a predictor in use. Raises MetanasError where there is none, or none to be read."""
        versions = cls(run)
        versions.adopt()
        if not versions.history:
            raise MetanasError(
                f"'{run}' has no predictor in use; give the folder of a finished run, or write one with `metanas "
                "predictor retrain`."
            )
        return versions

    @property
    def numbers(self) -> list[int]:
        """Of all that are kept, oldest first."""
        kept = [path for path in self.folder.glob("[0-9]*") if path.name.isdigit() and (path / "card.json").is_file()]
        return sorted(int(path.name) for path in kept)

    @property
    def history(self) -> list[int]:
        """The promoted ones in order; the last is in use. Empty where there are no versions yet."""
        path = self.folder / "history.json"
        return list(_read(path)) if path.is_file() else []

    def card(self, number: int) -> dict[str, Any]:
        """What is known of a version. Raises MetanasError where there is none, or none that can be read."""
        path = self.folder / str(number) / "card.json"
        if not path.is_file():
            known = ", ".join(map(str, self.numbers)) or "none"
            raise MetanasError(
                f"'{self.run}' has no predictor version {number} (there are: {known}); see `metanas predictor show`."
            )
        return dict(_read(path))

    def read(self, number: int) -> Saved:
        """What a version learned from, and its model."""
        self.card(number)
        return read_predictor(self.folder / str(number) / IN_USE)[0]

    def add(self, saved: Saved, fitted: Predictor, about: Mapping[str, Any]) -> int:
        """Keeps a new version with what is known `about` it, and gives its number; it is not in use yet."""
        number = max(self.numbers, default=0) + 1
        place, partial = self.folder / str(number), self.folder / f"partial-{number}"
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        save_predictor(partial / IN_USE, saved, fitted)
        data = saved.data
        card = {
            "version": number,
            "model": saved.model,
            "seed": saved.seed,
            "space": saved.space,
            "rows": len(data),
            "architectures": len(np.unique(data.architectures)),
            "tasks": data.task_names,
            "features": dict(data.table.layout),
            "libraries": library_versions(),
            **about,
        }
        (partial / "card.json").write_text(json.dumps(card, indent=1), encoding="utf-8")
        os.replace(partial, place)
        return number

    def adopt(self) -> None:
        """Makes the predictor that the search left version 1, where there are no versions yet.

        Raises MetanasError where it cannot be read.
        """
        if not self.history and (self.run / IN_USE).is_file():
            saved, _ = read_predictor(self.run / IN_USE)
            fitted = saved.make().fit(saved.data.table.values, saved.data.targets)
            self._use([self.add(saved, fitted, {"from": "the search itself"})])

    def promote(self, number: int, seed: int) -> Comparison | None:
        """Puts a version in use, unless it is worse than the one in use: then Worse. None without another.

        Raises MetanasError where the two cannot be compared.
        """
        new, comparison = self.read(number), None
        if self.history and self.history[-1] != number:
            comparison = compare(self.read(self.history[-1]), new, seed)
            if comparison.worse:
                raise Worse(
                    f"version {number} is worse than version {self.history[-1]} on held-out {comparison.held_out_by}: "
                    f"Kendall's tau {comparison.difference:+.2f}, p={comparison.p:.2g}; it is kept but not put in use.",
                    comparison,
                )
        if self.history[-1:] != [number]:
            self._use([*self.history, number])
        return comparison

    def rollback(self) -> int:
        """Puts back the version that was in use before, and gives its number. Raises MetanasError without one."""
        if len(self.history) < 2:
            raise MetanasError(f"'{self.run}' has no earlier predictor version to go back to.")
        self._use(self.history[:-1])
        return self.history[-1]

    def _use(self, history: list[int]) -> None:
        with whole(self.run / IN_USE) as partial:
            shutil.copyfile(self.folder / str(history[-1]) / IN_USE, partial)
        write_text(self.folder / "history.json", json.dumps(history))
