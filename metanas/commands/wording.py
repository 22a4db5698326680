"""How settings, figures and outcomes are put into words."""

from collections.abc import Mapping, Sequence
from math import isnan
from typing import Any


def short(value: Any, skip: Sequence[str] = ()) -> str:
    """A section of the configuration in words; what is empty or off is left out."""
    if isinstance(value, Mapping):
        inner = {key.replace("_", " "): short(item) for key, item in value.items() if key not in skip}
        words = [text if key == "name" else f"{key} {text}" for key, text in inner.items() if text]
        return ", ".join(words)
    if isinstance(value, list):
        return " ".join(f"({short(item)})" if isinstance(item, Mapping) else short(item) for item in value)
    return "" if value in (None, False) else str(value)


def percent(fraction: float | None) -> str:
    """A share from 0 to 1, or a dash where there is none."""
    return "-" if fraction is None or isnan(fraction) else f"{100 * fraction:.1f}%"


def points(fraction: float) -> str:
    """A difference of shares, in points and with its sign."""
    return "-" if isnan(fraction) else f"{100 * fraction:+.1f}"


def p_value(p: float) -> str:
    """To three places, or below what these can say."""
    if isnan(p):
        return "-"
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def half_width(half: float) -> str:
    """Of an interval, to stand behind a mean: nothing for one episode, which has none."""
    return "" if isnan(half) else f" +- {half:.2%}"


def count(number: int) -> str:
    """To three figures, with k, M or G."""
    for unit, size in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if number >= size:
            return f"{number / size:.3g} {unit}"
    return str(number)


def time(seconds: float) -> str:
    """Seconds, from a minute on in minutes."""
    return f"{seconds / 60:.1f} min" if seconds >= 60 else f"{seconds:.1f} s"


def collapse(result: Mapping[str, Any]) -> str:
    """Why a search by DARTS has collapsed and what was taken, of its result.json."""
    kept, counts = result["kept"], ", ".join(map(str, result["skips"]))
    why = "its eigenvalue grew" if kept and "eigenvalues" in result else "too many skip connections"
    end = f"taken is what it had after epoch {kept}" if kept else "what it ended with is taken, see docs/darts.md"
    return f"DARTS collapsed: {why} (in the normal cell after each epoch: {counts}); {end}."
