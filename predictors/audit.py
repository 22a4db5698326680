"""What pruning missed, estimated from the pruned candidates that were measured all the same."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from scipy import stats


@dataclass(frozen=True)
class Missed:
    """Winners among the pruned: the estimate and its 95% interval, of `pruned` candidates of which `audited` were seen.

    A winner measured above all that the screen kept in its generation.
    """

    pruned: int
    audited: int
    winners: int
    estimate: float
    low: float
    high: float


def missed_winners(generations: Sequence[Mapping[str, Any]]) -> Missed | None:
    """Sums over the screen's reports of generations; None where nothing was audited.

    Each generation's audited candidates stand for all that it pruned (Horvitz and Thompson 1952). The interval is that
    of the pooled share of winners (Clopper and Pearson 1934), widened to the estimate where generations differ so much
    that it lies outside.
    """
    judged = [report for report in generations if report.get("audited")]
    if not judged:
        return None
    pruned, audited, winners = (sum(report[key] for report in judged) for key in ("pruned", "audited", "winners"))
    estimate = sum(report["pruned"] * report["winners"] / report["audited"] for report in judged)
    share = stats.binomtest(winners, audited).proportion_ci(0.95, method="exact")
    low, high = min(float(share.low) * pruned, estimate), max(float(share.high) * pruned, estimate)
    return Missed(pruned, audited, winners, estimate, low, high)
