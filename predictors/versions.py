"""Versions of a run's predictor: kept side by side, compared on what is held out, promoted and rolled back.

`predictor.safetensors` in the run's folder is the one in use. `predictors/N/` holds version N with its card (what it
saw, features, figures, library versions), `predictors/history.json` the promoted numbers in order.
"""

import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

from metanas.errors import MetanasError
from metanas.files import whole, write_text
from predictors.choice import fold_taus
from predictors.conformal import group_folds
from predictors.data import FOLDS, Data
from predictors.features import Table
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


def compare(old: Saved, new: Saved, seed: int) -> Comparison:
    """Fits both again without each fold of all that either has seen, and asks both about it.

    A fold is some tasks where both have enough of them, else some architectures. What the newer one leaves out of the
    older one's data is asked about, too, so that bad data do not judge themselves.
    Raises MetanasError for predictors of different spaces.
    """
    if old.space != new.space or old.data.table.layout != new.data.table.layout:
        raise MetanasError(
            f"these predictors cannot be compared: one knows the features {dict(old.data.table.layout)} of the space "
            f"'{old.space}', the other {dict(new.data.table.layout)} of '{new.space}'; retrain on runs of one space."
        )
    data = _union(old.data, new.data)
    by = "tasks" if old.data.held_out_by == new.data.held_out_by == "tasks" else "architectures"
    names = {part: _names(part_data, by) for part, part_data in (("all", data), ("old", old.data), ("new", new.data))}
    different = sorted(set(names["all"]))
    count = min(len(different), MOST_TASKS) if by == "tasks" else FOLDS
    folds = group_folds(np.array([different.index(name) for name in names["all"]]), count, seed)
    answers = {"old": np.zeros(len(data)), "new": np.zeros(len(data))}  # a constant orders nothing
    for fold in folds:
        out = {names["all"][row] for row in fold}
        for part, saved in (("old", old), ("new", new)):
            kept = saved.data.take(np.flatnonzero([name not in out for name in names[part]]))
            if len(kept):
                fitted = saved.make().fit(kept.table.values, kept.targets)
                answers[part][fold] = fitted.predict(data.table.values[fold])[0]
    before, after = fold_taus(answers["old"], data, folds), fold_taus(answers["new"], data, folds)
    gaps = after - before
    p = float(stats.ttest_1samp(gaps, 0.0, alternative="less").pvalue) if np.ptp(gaps) > 0 else float(gaps.mean() >= 0)
    return Comparison(by, tuple(before.tolist()), tuple(after.tolist()), float(gaps.mean()), p)


def _union(old: Data, new: Data) -> Data:
    """All rows of the newer data, and those pairs of architecture and task that only the older has."""
    have = set(zip(_names(new, "architectures"), new.tasks, strict=True))
    pairs = zip(_names(old, "architectures"), old.tasks, strict=True)
    more = old.take(np.flatnonzero([pair not in have for pair in pairs]))
    values = np.vstack([new.table.values, more.table.values])
    return Data.of(Table(values, new.table.layout), np.r_[new.targets, more.targets], (*new.tasks, *more.tasks))


def _names(data: Data, by: str) -> list[str]:
    """What is held out together, for every row: its task, or its architecture."""
    return list(data.tasks) if by == "tasks" else [row.tobytes().hex() for row in data.table.values]


class Versions:
    """The versions in a run's folder."""

    def __init__(self, run: Path) -> None:
        self.run, self.folder = run, run / "predictors"

    @property
    def numbers(self) -> list[int]:
        """Of all that are kept, oldest first."""
        return sorted(int(path.name) for path in self.folder.glob("[0-9]*") if (path / "card.json").is_file())

    @property
    def history(self) -> list[int]:
        """The promoted ones in order; the last is in use. Empty where there are no versions yet."""
        path = self.folder / "history.json"
        return list(json.loads(path.read_text(encoding="utf-8"))) if path.is_file() else []

    def card(self, number: int) -> dict[str, Any]:
        """What is known of a version. Raises MetanasError where there is none."""
        path = self.folder / str(number) / "card.json"
        if not path.is_file():
            known = ", ".join(map(str, self.numbers)) or "none"
            raise MetanasError(
                f"'{self.run}' has no predictor version {number} (there are: {known}); see `metanas predictor show`."
            )
        card: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return card

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
        """Makes the predictor that the search left version 1, where there are no versions yet."""
        if not self.history and (self.run / IN_USE).is_file():
            try:
                saved, _ = read_predictor(self.run / IN_USE)
            except MetanasError:
                return  # of a metanas that kept no versions: what cannot be read cannot be compared, and is replaced
            fitted = saved.make().fit(saved.data.table.values, saved.data.targets)
            self._use([self.add(saved, fitted, {"from": "the search itself"})])

    def promote(self, number: int, seed: int) -> Comparison | None:
        """Puts a version in use, unless it is worse than the one in use: then MetanasError. None without another."""
        new, comparison = self.read(number), None
        if self.history and self.history[-1] != number:
            comparison = compare(self.read(self.history[-1]), new, seed)
            if comparison.worse:
                raise MetanasError(
                    f"version {number} is worse than version {self.history[-1]} on held-out {comparison.held_out_by}: "
                    f"Kendall's tau {comparison.difference:+.2f}, p={comparison.p:.2g}; it is kept but not put in use."
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
