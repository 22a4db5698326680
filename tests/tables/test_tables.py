"""Tabular benchmarks: small files made here with all that the real ones hold, and the real ones where they are."""

import os
from collections import defaultdict
from collections.abc import Callable, Mapping
from itertools import product
from pathlib import Path

import numpy as np
import pytest

from metanas.api import Candidate
from metanas.errors import MetanasError
from metanas.search.catalogue import make_strategy
from metanas.seeding import stream
from metanas.spaces.genes import enumerated
from metanas.statistics import paired
from metanas.strategies.halving import fidelity
from metanas.tables import nasbench201, transnas
from metanas.tables.cell import EDGES, TableCells
from metanas.tables.table import LookUp, Table, tables_folder


def expected_output(space: TableCells, architecture: tuple[int, ...], weights: np.ndarray) -> float:
    """The cell in numbers: an operation with weights is a function of its own on every edge, identities are exact."""
    nodes = np.zeros(4)
    nodes[0] = 1.7
    for edge, (a, b) in enumerate(EDGES):
        name = space.operations[architecture[edge]]
        if name == "none" or nodes[a] == 0:
            continue
        if name == space.skip and not (space.strided and a == 0):
            nodes[b] += nodes[a]
        else:
            # Weights belong to the operation and not to the edge: equal cells may lay them out differently.
            nodes[b] += np.sin(weights[space.operations.index(name)] * nodes[a])
    return float(nodes[3])


@pytest.mark.parametrize("space", [nasbench201.SPACE, transnas.SPACE], ids=lambda space: space.name)
def test_canonical_cells_are_exactly_those_that_compute_the_same(space: TableCells) -> None:
    weights = np.random.default_rng(0).uniform(0.5, 3, size=len(space.operations))
    every = list(product(range(len(space.operations)), repeat=len(EDGES)))[:: 1 if len(space.operations) == 4 else 7]
    computed = defaultdict(set)
    for architecture in every:
        canonical = space.canonical(architecture)
        assert canonical <= architecture
        assert space.canonical(canonical) == canonical
        output = expected_output(space, architecture, weights)
        assert expected_output(space, canonical, weights) == pytest.approx(output, abs=1e-12)
        computed[round(output, 9)].add(canonical)
    assert all(len(canonicals) == 1 for canonicals in computed.values())


def test_the_encoding_is_that_of_what_is_computed() -> None:
    space = nasbench201.SPACE
    skip, conv = 1, 3
    chain, direct = (conv, 0, skip, 0, 0, skip), (0, 0, 0, conv, 0, 0)
    np.testing.assert_array_equal(space.encode(chain), space.encode((conv, 0, 0, 0, skip, 0)))
    paths = 1 + 3 + 3**2 + 3**3  # the words of at most three of three operations come first
    np.testing.assert_array_equal(space.encode(chain)[:paths], space.encode(direct)[:paths])
    assert space.encode(chain)[:paths].sum() == 1  # one path
    assert space.encode((conv,) * 6)[:paths].sum() == 4


@pytest.mark.parametrize("space", [nasbench201.SPACE, transnas.SPACE], ids=lambda space: space.name)
def test_a_cell_and_its_equals_have_one_encoding(space: TableCells) -> None:
    rng = np.random.default_rng(0)
    for architecture in (space.sample(rng) for _ in range(200)):
        np.testing.assert_array_equal(space.encode(architecture), space.encode(space.canonical(architecture)))


def test_a_strided_skip_works_and_any_other_hands_on() -> None:
    skip, conv = 1, 3
    architecture = (skip, 0, 0, 0, skip, conv)  # input to node 1 to output; node 2 is fed by nothing
    assert nasbench201.SPACE.graph(architecture).words == [()]
    assert transnas.SPACE.graph(architecture).words == [(0,)]
    assert transnas.SPACE.graph((conv, 0, conv, 0, 0, skip)).words == [(2, 2)]


def write201(folder: Path) -> dict[str, np.ndarray]:
    """A file like the real one, in a shuffled order, with a row's number in every score."""
    rng = np.random.default_rng(0)
    operations = rng.permutation(np.array(list(product(range(5), repeat=6)), dtype=np.int8))
    names = np.array(["avg_pool_3x3", "none", "skip_connect", "nor_conv_3x3", "nor_conv_1x1"])
    number = np.arange(len(operations), dtype=float)[:, None] + np.array([0, 0.25, 0.5])
    seeds = np.stack([number - 1, number + 1, np.full_like(number, np.nan)], axis=2)
    arrays = {
        "ops": operations,
        "op_names": names,
        "datasets": np.array(nasbench201.DATASETS),
        "val_acc_12": number / 2,
        "val_acc_200_seeds": seeds,
        "test_acc_200": -number,
        "train_time_s_200": 1000 + number,
        "params_m": number / 1e3,
        "latency_s": number / 1e6,
    }
    np.savez(folder / "nasbench201.npz", **arrays)
    np.savez(folder / "nasbench201_latency_ms.npz", devices=np.array(["phone"]), latency_ms=number[:, 0][None])
    return arrays


def test_a_query_finds_the_row_of_the_architecture(tmp_path: Path) -> None:
    arrays = write201(tmp_path)
    tables = nasbench201.load(tmp_path)
    assert list(tables) == list(nasbench201.DATASETS)
    table = tables["cifar100"]
    for row in (0, 1, 777, 15624):
        named = [str(arrays["op_names"][i]) for i in arrays["ops"][row]]
        architecture = tuple(nasbench201.OPERATIONS.index(name) for name in named)
        score = row + 0.25
        assert table.validate(architecture) == score  # the mean of the seeds that are there
        assert table.validate(architecture, 12 / 200) == score / 2
        assert table.test(architecture) == -score
        assert table.seconds(architecture) == 1000 + score
        assert table.cost(architecture).params == round(1e3 * score)
        assert table.cost(architecture).latency is None
        assert table.on("phone").cost(architecture).latency == pytest.approx(row / 1e3)
        assert table.latency(architecture, "benchmark") == pytest.approx(score / 1e6)
    with pytest.raises(MetanasError, match=r"no latency on the device 'toaster'; it has benchmark, phone"):
        table.on("toaster")
    with pytest.raises(MetanasError, match=r"no measurements after 0\.5 of the training; its fidelities are 0\.06, 1"):
        table.validate((0,) * 6, 0.5)


def test_the_clock_counts_every_part_of_a_training_once(tmp_path: Path) -> None:
    write201(tmp_path)
    look_up = LookUp(table := nasbench201.load(tmp_path)["cifar10"])
    a, b = (1,) * 6, (3,) * 6
    assert look_up(a, 0.06).accuracy == table.validate(a, 0.06)
    assert (look_up.trainings, look_up.seconds) == (0.06, pytest.approx(0.06 * table.seconds(a)))
    assert look_up(a).accuracy == table.validate(a)  # goes on from there
    look_up(b)
    assert look_up.trainings == pytest.approx(2)
    assert look_up.seconds == pytest.approx(table.seconds(a) + table.seconds(b))


def test_operations_are_those_of_the_networks() -> None:
    """NAS-Bench-201 gives 220.12 M for all 3x3 convolutions and 7.78 M for no operation, on CIFAR-10."""
    counted = nasbench201.macs("cifar10")
    assert counted.max() == counted[np.ravel_multi_index((3,) * 6, (5,) * 6)] == 220_119_680
    assert counted.min() == counted[0] == 7_783_040


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"ops": np.zeros((15625, 6), dtype=np.int8)}, "must list each of the 15,625 cells"),
        ({"op_names": np.array(list("abcde"))}, "must list each of the 15,625 cells"),
        ({"test_acc_200": np.array([{}])}, "is not the table that was expected"),  # an object, hence pickled
        (None, "is not the table that was expected"),
    ],
)
def test_another_file_is_refused(tmp_path: Path, change: dict[str, np.ndarray] | None, message: str) -> None:
    if change is not None:
        np.savez(tmp_path / "nasbench201.npz", **(write201(tmp_path) | change))
    with pytest.raises(MetanasError, match=rf"nasbench201\.npz.*{message}"):
        nasbench201.load(tmp_path)


def test_the_folder_is_the_named_one_then_that_of_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("METANAS_NASBENCH", str(tmp_path))
    assert tables_folder() == tmp_path
    (named := tmp_path / "named").mkdir()
    assert tables_folder(named) == named
    monkeypatch.setenv("METANAS_NASBENCH", str(tmp_path / "missing"))
    with pytest.raises(MetanasError, match=r"no benchmark tables in .*missing.*--tables DIR or METANAS_NASBENCH"):
        tables_folder()


@pytest.fixture(scope="module")
def folder() -> Path:
    """The real tables."""
    named = os.environ.get("METANAS_NASBENCH")
    found = Path(named) if named else Path(__file__).parents[3] / "shared" / "nasbench"
    if not (found / "nasbench201.npz").exists():
        pytest.skip("METANAS_NASBENCH names no folder of benchmark tables")
    return found


def test_equivalent_by_the_benchmarks_own_count_is_equivalent_here(folder: Path) -> None:
    with np.load(folder / "nasbench201.npz", allow_pickle=False) as file:
        unique, operations, names = file["unique_id"], file["ops"], file["op_names"]
    assert tuple(map(str, names)) == nasbench201.OPERATIONS
    classes = defaultdict(set)
    for number, architecture in zip(unique.tolist(), operations.tolist(), strict=True):
        classes[number].add(nasbench201.SPACE.canonical(tuple(architecture)))
    assert len(classes) == 6466
    assert all(len(canonicals) == 1 for canonicals in classes.values())
    assert len({c for canonicals in classes.values() for c in canonicals}) == 4930


def test_the_real_tables_hold_what_was_published(folder: Path) -> None:
    tables = nasbench201.load(folder) | transnas.load(folder)
    best = {name: round(float(table.tested.max()), 2) for name, table in tables.items()}
    assert (best["cifar10"], best["cifar100"], best["ImageNet16-120"]) == (94.37, 73.51, 47.31)
    assert best["class_scene"] == 54.94
    plain = nasbench201.SPACE.size() - 1  # all pools: the classifier and the skeleton alone have weights
    assert tables["cifar10"].params[plain] == 73_306
    assert tables["cifar10"].latency(enumerated(nasbench201.SPACE, 0), "benchmark") > 0


RACE = {"rungs": list(nasbench201.FIDELITIES), "eta": 8}


@pytest.fixture(scope="module")
def table(folder: Path) -> Table:
    return nasbench201.load(folder)["cifar100"]


def searched(table: Table, choice: Mapping[str, object], seed: int, trainings: int) -> list[Candidate]:
    """What so many full trainings found, at their full length."""
    strategy, rng, look_up, found = make_strategy(choice, table.space, 20), stream(seed), LookUp(table), []
    while look_up.trainings < trainings:
        told = [look_up(a, share) for a in strategy.ask(5, rng) for share in [fidelity(strategy, a)]]
        found += [c for c in told if fidelity(strategy, c.architecture) == 1]
        strategy.tell(told)
    return found


def best(found: list[Candidate]) -> float:
    return max(candidate.accuracy for candidate in found)


def front(found: list[Candidate]) -> float:
    """The area below the front: the best accuracy within a bound on MACs, over all bounds up to the largest cell's."""
    by_cost = sorted((candidate.cost.macs, candidate.accuracy) for candidate in found)
    bounds = np.array([macs for macs, _ in by_cost] + [220_125_440])
    accuracies = np.maximum.accumulate([accuracy for _, accuracy in by_cost])
    return float((accuracies * np.diff(bounds)).sum())


@pytest.mark.parametrize(
    ("choice", "score", "seeds", "trainings"),
    [
        ({"name": "regularized"}, best, 20, 80),
        ({"name": "local"}, best, 20, 80),
        ({"name": "evolution", "costs": []}, best, 20, 200),
        ({"name": "evolution", "costs": [], "crossover": "one-point"}, best, 20, 200),
        ({"name": "evolution", "costs": ["macs"]}, front, 20, 200),
        ({"name": "guided"}, best, 6, 80),
        ({"name": "halving", **RACE}, best, 20, 80),
        ({"name": "hyperband", **RACE}, best, 20, 80),
        ({"name": "asha", **RACE}, best, 20, 80),
        ({"name": "asha", "over": {"name": "regularized"}, **RACE}, best, 20, 80),
        # Controllers and populations of 20 begin to lead after a hundred.
        ({"name": "reinforce"}, best, 30, 200),
        ({"name": "ppo"}, best, 30, 200),
    ],
    ids=[
        "regularized",
        "local",
        "genetic",
        "one-point",
        "NSGA-II",
        "guided",
        "halving",
        "hyperband",
        "asha",
        "asha over regularized",
        "reinforce",
        "ppo",
    ],
)
def test_strategies_beat_random_on_the_real_table(
    table: Table, choice: Mapping[str, object], score: Callable[[list[Candidate]], float], seeds: int, trainings: int
) -> None:
    ours, random = (
        np.array([score(searched(table, kind, seed, trainings)) for seed in range(seeds)])
        for kind in (choice, {"name": "random"})
    )
    result = paired(ours, random)
    assert result.difference > 0
    assert result.p < 0.05
