"""Where the time of a meta-gradient goes: the shares of the kinds of operations, on one core.

The episodes, networks and settings of `benchmarks.meta_step`. Convolutions are `metanas/spaces/winograd.py` or of
PyTorch (oneDNN), and their share says how many times as fast it could be if all else took no time. Pooling,
normalisation and ReLU are `metanas/spaces/fused.py`. Milliseconds are without the profiler.
"""

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from itertools import count

import torch
from torch.profiler import ProfilerActivity
from torch.profiler import profile as profiled

from benchmarks.meta_step import METHODS, PRECISIONS, run_config
from benchmarks.rounds import Spread, arguments, finish, in_turn, run, spread, table
from metanas.assembly import CONV4, SUPERNET, make_learner, make_pool, make_samplers
from metanas.learning.executor import InProcess
from metanas.learning.memory import keep_freed_memory
from metanas.learning.worker import GradientJob, Worker
from tasks.pool import Pool

KINDS = {
    "convolutions": ("conv", "_Convolve", "_ByInput", "_ByWeight"),
    "pooling, normalisation, ReLU": ("_Normalise", "_Gradients", "threshold", "max_pool"),
    "copies": ("copy", "clone", "empty", "zero", "fill"),
    "matrix products": ("aten::mm", "aten::addmm", "aten::bmm", "aten::linear"),
}
"""By what stands in their names, the first that fits."""
REST = "all other operations"


def kind_of(operation: str) -> str:
    """The kind of an operation by its name."""
    return next((kind for kind, names in KINDS.items() if any(name in operation for name in names)), REST)


def shares(call: Callable[[], object], repeats: int) -> dict[str, float]:
    """Of the time within operations, by kind."""
    with profiled(activities=[ProfilerActivity.CPU]) as found:
        for _ in range(repeats):
            call()
    spent: Counter[str] = Counter()
    for event in found.key_averages():
        spent[kind_of(event.key)] += event.self_cpu_time_total
    return {kind: spent[kind] / spent.total() for kind in (*KINDS, REST)}


def drawing(pool: Pool, augment: str | None, rounds: int) -> Spread:
    """Milliseconds of drawing the episode that a gradient is of."""
    config = run_config("fomaml", "float32")
    config = config.model_copy(update={"train": replace(config.train, augment=augment)})
    sampler, index = make_samplers(config, pool)["train"], count()
    return spread(1000 * in_turn({"an episode": lambda: sampler.episode(next(index))}, rounds)["an episode"])


def main() -> None:
    """Prints a column for each network, method and precision."""
    asked = arguments(__doc__.splitlines()[0], rounds=15)
    keep_freed_memory()  # as workers do
    torch.set_num_threads(1)
    pool = make_pool(run_config("fomaml", "float32"), None)
    columns, keys = list[tuple[str, ...]](), dict[str, object]()
    for network in (CONV4, SUPERNET):
        for method in METHODS:
            for precision in PRECISIONS:
                config = run_config(method, precision)
                learner = make_learner(config, network)
                job = GradientJob(network, learner.supernet.space.default, episode=0)
                with InProcess(partial(Worker, {network: learner}, make_samplers(config, pool))) as executor:
                    call = partial(executor.run, [job])
                    took = spread(1000 * in_turn({"a gradient": call}, asked.rounds)["a gradient"])
                    found = shares(call, 5)
                name = f"{network} {method} {precision}"
                limit = 1 / found["convolutions"]
                columns.append((name, f"{took.median:.1f}", *(f"{s:.0%}" for s in found.values()), f"{limit:.2f}"))
                keys |= {f"{name}: ms": took, f"{name}: shares": found}
    table(("a gradient", "ms", *KINDS, REST, "limit"), columns)
    for augment in (None, "handwriting", "surface"):
        took = drawing(pool, augment, asked.rounds)
        print(f"drawing the episode of a gradient, augmentation {augment or 'none'}: {took} ms")
        keys[f"drawing, augmentation {augment or 'none'}: ms"] = took
    finish(asked, **keys)


if __name__ == "__main__":
    run(main)
