"""Outer steps of MAML a second, metanas against learn2learn: the same network, the same episodes, two cores.

5-way 1-shot, 15 queries a class, 28x28, 4 tasks a step, 5 inner steps, Adam outside. Metanas draws its episodes within
the time measured and learn2learn gets them ready-made. The network is Conv-4, then the default architecture of
the elastic stages, with sample normalisation; learn2learn trains the same written with PyTorch's own modules, from the
same weights, in float32 on two threads, which is how it comes. Its inner loop starts from the head that metanas's does
(Proto-MAML; Triantafillou et al. 2020), so that both compute the same thing. Metanas computes in the precision that
`auto` takes here, and in float32. Afterwards all, from the same weights by the same number of steps on the same
episodes, answer the same validation episodes: one whose accuracy is further from its peer's than chance and rounding
take it, as MARGINS says, ends in an error.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.digits import configuration
from benchmarks.rounds import arguments, finish, in_turn, peer_module, ratio, run, spread, table
from metanas.api import Architecture, Cost
from metanas.assembly import (
    CONV4,
    SUPERNET,
    WorkerRecipe,
    make_executor,
    make_learner,
    make_pool,
    make_samplers,
    precision_of,
)
from metanas.config import RunConfig
from metanas.errors import MetanasError
from metanas.learning.executor import Executor
from metanas.learning.inner import prototype_head
from metanas.learning.learner import Precision, native_precision
from metanas.learning.meta import Method
from metanas.learning.problems import EpisodeData
from metanas.learning.trainer import MetaTrainer
from metanas.learning.worker import EvaluationJob, Sampler
from metanas.measuring.cost import cost
from metanas.spaces.fused import EPS, Pool, pooled
from metanas.spaces.norm import SampleNorm
from metanas.spaces.space import Features
from metanas.spaces.winograd import Convolution
from metanas.statistics import mean_interval

TASKS, WAYS, SHOTS, QUERIES, INNER, STEPS = 4, 5, 1, 15, 5, 5  # STEPS: outer steps timed at once
HELD_OUT = 200  # validation episodes
MARGINS = {CONV4: 0.05, SUPERNET: 0.01}
"""Of accuracy, what counts as equal. Conv-4 normalises maps of one pixel: from weights that differ by 1e-7 it comes to
up to 6 points more or less. That both sides compute the same meta-gradient is shown by a test."""
PEAK_SIZE, PEAK_REPEATS = 2048, 10
RATE, INNER_RATE = 1e-3, 0.05
METHODS: tuple[Method, ...] = ("fomaml", "maml")
PRECISIONS: tuple[Precision, ...] = tuple(dict.fromkeys((native_precision("cpu"), "float32")))
"""What this processor has instructions for."""


def run_config(method: Method, precision: Precision | Literal["auto"]) -> RunConfig:
    """With sample normalisation, which asks no other sample, so that both sides compute the same."""
    rates = {"body_rate": INNER_RATE, "head_rate": INNER_RATE, "learned_rates": False}
    inner = {"steps": INNER, "method": method, **rates}
    return configuration(QUERIES, SHOTS, inner=inner, precision=precision)


class PlainNorm(nn.Module):
    """What SampleNorm computes, as one would write it with PyTorch."""

    def __init__(self, norm: SampleNorm) -> None:
        super().__init__()
        self.weight, self.bias, self.groups = norm.weight, norm.bias, norm.groups

    def forward(self, x: Tensor, reference: int, pool: Pool | None = None, relu: bool = False) -> Tensor:
        x = x if pool is None else pooled(x, pool)
        x = F.group_norm(x, self.groups, self.weight, self.bias, EPS)
        return torch.relu(x) if relu else x


def plain(network: Features) -> Features:
    """A network without operations of ours."""
    for module in list(network.modules()):
        for name, child in module.named_children():
            if isinstance(child, SampleNorm):
                setattr(module, name, PlainNorm(child))
            elif isinstance(child, Convolution):
                child.__class__ = nn.Conv2d  # type: ignore[assignment]  # it is one, but for how it computes
    return network


class Classifier(nn.Module):
    """A feature extractor and a linear head, whose numbers every episode sets."""

    def __init__(self, features: Features) -> None:
        super().__init__()
        self.features, self.head = features.requires_grad_(), nn.Linear(1, WAYS)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(self.features(x, len(x)))
        return logits


class Peer:
    """learn2learn's MAML as its own examples use it, but for the head: prototypes of a meta-learned scale."""

    def __init__(self, features: Features, first_order: bool) -> None:
        maml = peer_module("learn2learn.algorithms").MAML
        self.maml = maml(Classifier(features), lr=INNER_RATE, first_order=first_order)
        self.scale = torch.zeros((), requires_grad=True)
        self.optimizer = torch.optim.Adam([*features.parameters(), self.scale], RATE)

    def train(self, episodes: Sequence[EpisodeData]) -> None:
        """Outer steps on TASKS episodes each."""
        for start in range(0, len(episodes), TASKS):
            self.optimizer.zero_grad()
            for episode in episodes[start : start + TASKS]:
                loss = F.cross_entropy(self.adapted_logits(episode), episode.query_labels) / TASKS
                torch.autograd.backward(loss)
            self.optimizer.step()

    def accuracies(self, sampler: Sampler) -> np.ndarray:
        """On the queries of held-out episodes (HELD_OUT,)."""
        episodes = [sampler.episode(index) for index in range(HELD_OUT)]
        return np.array([float((self.adapted_logits(e).argmax(1) == e.query_labels).float().mean()) for e in episodes])

    def adapted_logits(self, episode: EpisodeData) -> Tensor:
        """Of the queries, after the inner loop."""
        support, labels = episode.support_inputs, episode.support_labels
        # Of the features before cloning: MAML adapts the clone's numbers, none of which the head may hang on.
        features = self.maml.module.features(support, len(support))
        learner = self.maml.clone()
        start = prototype_head(features, labels, WAYS, self.scale.exp())
        learner.module.head._parameters.update(weight=start["head.weight"], bias=start["head.bias"])
        for _ in range(INNER):
            learner.adapt(F.cross_entropy(learner(support), labels))
        logits: Tensor = learner(episode.query_inputs)
        return logits


def ours(executor: Executor, network: str, architecture: Architecture) -> Callable[[], object]:
    """The same steps on two workers."""
    trainer = MetaTrainer(network, executor)
    return partial(trainer.train, [[architecture] * TASKS] * STEPS, 0, RATE)


def our_accuracies(executor: Executor, network: str, architecture: Architecture) -> np.ndarray:
    """On the queries of held-out episodes (HELD_OUT,)."""
    jobs = [
        EvaluationJob(network, architecture, Cost(0, 0), "validation", (index,), INNER, 0, 0)
        for index in range(HELD_OUT)
    ]
    rows = [row for found in executor.run(jobs) for row in found]
    if failed := next((row.error for row in rows if row.error), None):
        raise MetanasError(f"a network cannot be evaluated: {failed.strip().splitlines()[-1]}")
    return np.array([row.accuracy for row in rows], dtype=float)


def check_accuracy(title: str, found: Mapping[str, np.ndarray], margin: float) -> dict[str, Any]:
    """Prints every contender's mean and how far it is from its peer's; both, by name.

    Raises MetanasError where float32 differs from its peer by more than the margin beyond the 95% interval of the
    paired difference, or another precision is that far below.
    """
    means, rows = {name: mean_interval(values) for name, values in found.items()}, []
    differences: dict[str, tuple[float, float]] = {}
    for name, (mean, half) in means.items():
        theirs = f"learn2learn {name.split()[1]}"
        shown = ""
        if name != theirs:
            differences[name] = mean_interval(found[name] - found[theirs])
            shown = "{:+.2%} +- {:.2%}".format(*differences[name])
        rows.append((name, f"{mean:.1%} +- {half:.1%}", shown))
    table((title, "held-out accuracy", "minus its peer's"), rows)
    for name, (mean, half) in differences.items():
        off = abs(mean) if name.endswith("float32") else -mean
        if off - half > margin:
            raise MetanasError(
                f"{title}: {name} is {mean:+.1%} +- {half:.1%} from its peer's accuracy, where {margin:.0%} counts as "
                "equal; its speed counts for nothing."
            )
    return {
        "accuracy": {name: mean for name, (mean, _) in means.items()},
        "accuracy_difference": differences,
    }


def products() -> Callable[[], object]:
    """Matrix products on two threads, in the precision that pays here: what the peak is measured by."""
    a = torch.ones(PEAK_SIZE, PEAK_SIZE, dtype=getattr(torch, PRECISIONS[0]))
    out = torch.empty_like(a)
    return lambda: [torch.mm(a, a, out=out) for _ in range(PEAK_REPEATS)]


def operations(network: str, architecture: Architecture) -> float:
    """Of a first-order outer step: forward and twice as much backward, on the support set and on the whole episode.

    Counted as convolutions are defined; where ours makes fewer, the share of the peak says what these would take.
    """
    learner = make_learner(run_config("fomaml", "float32"), network)
    macs = cost(learner.supernet.space, architecture, 28).macs
    images = INNER * WAYS * SHOTS + WAYS * (SHOTS + QUERIES)
    return 2 * macs * 3 * images * TASKS


def main() -> None:
    """Prints steps a second and the ratios."""
    asked = arguments(__doc__.splitlines()[0], rounds=5)
    torch.set_num_threads(2)
    config = run_config("fomaml", "float32")
    samplers = make_samplers(config, make_pool(config, None))
    episodes = [samplers["train"].episode(index) for index in range(STEPS * TASKS)]
    auto = {method: precision_of(run_config(method, "auto")) for method in METHODS}
    settings = [(m, p) for m in METHODS for p in PRECISIONS if p in (auto[m], "float32")]
    keys: dict[str, Any] = {}
    with ExitStack() as stack:
        executors = {s: stack.enter_context(make_executor(WorkerRecipe(run_config(*s)))) for s in settings}
        for title, network in (("conv-4", CONV4), ("default", SUPERNET)):
            learner = make_learner(config, network)
            architecture = learner.supernet.space.default
            peers = {
                f"learn2learn {method}": Peer(plain(learner.supernet.extract(architecture)), method == "fomaml")
                for method in METHODS
            }
            contenders: dict[str, Callable[[], object]] = {
                name: partial(peer.train, episodes) for name, peer in peers.items()
            }
            contenders |= {
                f"metanas {m} {p}": ours(executor, network, architecture) for (m, p), executor in executors.items()
            }
            seconds = in_turn(contenders | {"products": products()}, asked.rounds)
            peak = 2 * PEAK_SIZE**3 * PEAK_REPEATS / seconds.pop("products")
            found = {
                name: ratio(seconds[f"learn2learn {name.split()[1]}"], values)
                for name, values in seconds.items()
                if name.startswith("metanas")
            }
            rows = [
                (title + ": " + name, f"{STEPS / np.median(values):.2f}", str(found.get(name, "")))
                for name, values in seconds.items()
            ]
            table(("two cores", "steps/s", "times learn2learn's"), rows)
            speed = operations(network, architecture) * STEPS / seconds[f"metanas fomaml {auto['fomaml']}"]
            share = ratio(speed, peak)
            print(
                f"{title}: {spread(speed / 1e9)} GFLOP/s first order; the matrix-product peak is {spread(peak / 1e9)}, "
                f"the fraction {share}\n"
            )
            accuracies = check_accuracy(
                title,
                {name: peer.accuracies(samplers["validation"]) for name, peer in peers.items()}
                | {f"metanas {m} {p}": our_accuracies(e, network, architecture) for (m, p), e in executors.items()},
                MARGINS[network],
            )
            print()
            suffix = "" if network == CONV4 else "_default"
            keys |= {
                "first_order_ratio" + suffix: found[f"metanas fomaml {auto['fomaml']}"],
                "second_order_ratio" + suffix: found[f"metanas maml {auto['maml']}"],
                "float32_ratio" + suffix: found["metanas fomaml float32"],
                "float32_second_order_ratio" + suffix: found["metanas maml float32"],
                "peak_fraction" + suffix: share,
            } | {key + suffix: value for key, value in accuracies.items()}
    finish(asked, **keys)


if __name__ == "__main__":
    run(main)
