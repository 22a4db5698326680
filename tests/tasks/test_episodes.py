"""Episodes: what they share and must not share, how many of each, which mistakes are named, and that they repeat."""

import math
import multiprocessing
from collections import Counter
from itertools import combinations

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from metanas.errors import MetanasError
from tasks.cache import InMemory
from tasks.episodes import Episode, EpisodeSampler, EpisodeSpec
from tasks.task import Task


def numbered(
    sizes: list[int], groups: list[int] | None = None, families: tuple[str, ...] | None = None, name: str = "numbers"
) -> Task:
    """A task whose sample i is an image of i in its first two pixels (high and low byte), all else zero."""
    labels = np.repeat(np.arange(len(sizes)), sizes)
    pixels = np.zeros((len(labels), 1, 4, 4), np.uint8)
    pixels[:, 0, 0, 0], pixels[:, 0, 0, 1] = np.divmod(np.arange(len(labels)), 256)
    classes = tuple(f"class {i}" for i in range(len(sizes)))
    sides = None if groups is None else np.array([f"board {g}" for g in groups])
    return Task(name, "image", InMemory(pixels), labels, classes, groups=sides, families=families)


def same(first: Episode, second: Episode) -> bool:
    return (
        torch.equal(first.support_inputs, second.support_inputs)
        and torch.equal(first.query_inputs, second.query_inputs)
        and torch.equal(first.support_labels, second.support_labels)
        and torch.equal(first.query_labels, second.query_labels)
        and (first.task, first.classes) == (second.task, second.classes)
    )


def drawn_elsewhere(index: int) -> Episode:
    return mixed_sampler().episode(index)


def mixed_sampler(seed: int = 5, name: str = "training") -> EpisodeSampler:
    spec = EpisodeSpec((2, 6), (1, 3), 2, imbalance=0.5, rotations=True, augment="affine")
    return EpisodeSampler([numbered([6, 7, 8]), numbered([9] * 5, name="nines")], spec, seed, name)


def test_all_ways_are_every_class_of_the_task_or_of_the_drawn_family() -> None:
    tasks = [numbered([6] * 3), numbered([6] * 5, name="fives", families=("a", "a", "a", "b", "b"))]
    found = [EpisodeSampler(tasks[1:], EpisodeSpec("all", 2, 1), 0, "x").episode(i) for i in range(20)]
    assert {e.ways for e in found} == {5}
    assert {frozenset(e.classes) for e in found} == {frozenset(tasks[1].classes)}
    mixed = EpisodeSampler(tasks, EpisodeSpec("all", 2, 1), 0, "x")
    assert {mixed.episode(i).ways for i in range(20)} == {3, 5}
    within = EpisodeSampler(tasks[1:], EpisodeSpec("all", 2, 1, within_family=1.0), 0, "x")
    assert {within.episode(i).ways for i in range(20)} == {2, 3}
    turned = EpisodeSampler(tasks[:1], EpisodeSpec("all", 2, 1, rotations=True), 0, "x")
    assert turned.episode(0).ways == 12


def test_an_episode_holds_what_was_asked_for() -> None:
    task = numbered([12] * 8)
    episode = EpisodeSampler([task], EpisodeSpec(5, 3, 4), 0, "x").episode(0)
    assert episode.support_inputs.shape == (15, 1, 4, 4)
    assert episode.query_inputs.shape == (20, 1, 4, 4)
    assert episode.support_inputs.dtype == torch.float32
    assert episode.support_labels.tolist() == sorted([0, 1, 2, 3, 4] * 3)
    assert Counter(episode.query_labels.tolist()) == dict.fromkeys(range(5), 4)
    for inputs, labels, ids in (
        (episode.support_inputs, episode.support_labels, episode.support_ids),
        (episode.query_inputs, episode.query_labels, episode.query_ids),
    ):
        high_low = (inputs[:, 0, 0, :2] * 255).round().long()
        assert (high_low[:, 0] * 256 + high_low[:, 1]).tolist() == ids.tolist()
        assert [task.classes[task.labels[i]] for i in ids] == [episode.classes[label] for label in labels]


def test_an_episode_depends_on_seed_name_and_index_alone() -> None:
    forward = [mixed_sampler().episode(index) for index in range(6)]
    backward = [mixed_sampler().episode(index) for index in reversed(range(6))][::-1]
    assert all(map(same, forward, backward))
    with multiprocessing.get_context("spawn").Pool(1) as process:
        assert all(map(same, forward, process.map(drawn_elsewhere, range(6))))
    assert not any(map(same, forward, forward[1:]))
    assert not same(forward[0], mixed_sampler(seed=6).episode(0))
    assert not same(forward[0], mixed_sampler(name="validation").episode(0))


@settings(deadline=None, max_examples=60)
@given(
    sizes=st.lists(st.integers(4, 20), min_size=2, max_size=6),
    shots=st.one_of(st.integers(1, 2), st.tuples(st.just(1), st.integers(1, 9))),
    rotations=st.booleans(),
    imbalance=st.sampled_from([0.0, 0.4, 0.9]),
    seed=st.integers(0, 2**32),
)
def test_support_and_query_share_no_sample(
    sizes: list[int], shots: int | tuple[int, int], rotations: bool, imbalance: float, seed: int
) -> None:
    spec = EpisodeSpec((2, 30), shots, 2, imbalance=imbalance, rotations=rotations)
    episode = EpisodeSampler([numbered(sizes)], spec, seed, "x").episode(0)
    assert not set(episode.support_ids) & set(episode.query_ids)
    ways = range(episode.ways)
    assert set(episode.support_labels.tolist()) == set(episode.query_labels.tolist()) == set(ways)
    assert len(set(episode.classes)) == episode.ways
    for ids, labels in ((episode.support_ids, episode.support_labels), (episode.query_ids, episode.query_labels)):
        for way in ways:
            chosen = ids[labels.numpy() == way]
            assert len(set(chosen)) == len(chosen)


@settings(deadline=None, max_examples=80)
@given(data=st.data(), seed=st.integers(0, 2**32))
def test_support_and_query_share_no_group(data: st.DataObject, seed: int) -> None:
    sizes = data.draw(st.lists(st.integers(8, 25), min_size=2, max_size=4))
    count = data.draw(st.integers(2, 12))
    total = sum(sizes)
    groups = data.draw(st.lists(st.integers(0, count - 1), min_size=total, max_size=total))
    task = numbered(sizes, groups)
    try:
        episode = EpisodeSampler([task], EpisodeSpec(2, 2, 3), seed, "x").episode(0)
    except MetanasError:
        assume(False)
    assert task.groups is not None
    assert not set(task.groups[episode.support_ids]) & set(task.groups[episode.query_ids])
    assert (len(episode.support_ids), len(episode.query_ids)) == (4, 6)


def test_a_division_of_groups_is_found_where_only_few_exist() -> None:
    """Held against all 2**6 divisions of six boards, of which few leave 3 samples on one side and 9 on the other."""
    boards = [0, 1, 2, 3, 3, 3, 4, 4, 4, 5, 5, 5]
    names = [f"board {board}" for board in range(6)]
    allowed = {
        frozenset(query)
        for size in range(7)
        for query in combinations(names, size)
        if sum(f"board {board}" in query for board in boards) == 9
    }
    assert 1 <= len(allowed) <= 5
    task = numbered([12, 12], boards * 2)
    sampler = EpisodeSampler([task], EpisodeSpec(2, 3, 9), 0, "x")
    assert task.groups is not None
    found = {frozenset(task.groups[sampler.episode(index).query_ids].tolist()) for index in range(100)}
    assert found == allowed


def test_groups_change_sides_from_one_episode_to_the_next() -> None:
    task = numbered([20, 20], list(range(10)) * 4)
    sampler = EpisodeSampler([task], EpisodeSpec(2, 3, 3), 0, "x")
    assert task.groups is not None
    in_support: Counter[str] = Counter()
    for index in range(100):
        in_support.update(set(task.groups[sampler.episode(index).support_ids]))
    assert len(in_support) == 10
    assert min(in_support.values()) > 15


@pytest.mark.parametrize("rotations", [False, True])
def test_classes_are_used_equally_often(rotations: bool) -> None:
    task = numbered([5] * 10)
    sampler = EpisodeSampler([task], EpisodeSpec(4, 1, 1, rotations=rotations), 0, "x")
    used = Counter(name for index in range(1000) for name in sampler.episode(index).classes)
    assert len(used) == (40 if rotations else 10)
    mean = 4000 / len(used)
    # Each count is binomial: all forty lie within 4.5 standard deviations.
    assert all(abs(count - mean) < 4.5 * mean**0.5 for count in used.values())


def test_samples_are_used_equally_often() -> None:
    sampler = EpisodeSampler([numbered([10, 10])], EpisodeSpec(2, 2, 3), 0, "x")
    episodes = [sampler.episode(index) for index in range(1000)]
    for ids, expected in (([e.support_ids for e in episodes], 200), ([e.query_ids for e in episodes], 300)):
        used = Counter(np.concatenate(ids).tolist())
        assert len(used) == 20
        assert all(abs(count - expected) < 4.5 * expected**0.5 for count in used.values())


def test_rotated_classes_are_turned_images() -> None:
    task = numbered([6] * 4)
    episode = EpisodeSampler([task], EpisodeSpec(16, 2, 3, rotations=True), 0, "x").episode(0)
    assert len(set(episode.classes)) == 16
    originals = torch.from_numpy(task.read(episode.query_ids)).float() / 255
    for image, original, label in zip(episode.query_inputs, originals, episode.query_labels, strict=True):
        _, _, degrees = episode.classes[label].partition(" turned ")
        assert torch.equal(image, torch.rot90(original, int(degrees or 0) // 90, (1, 2)))


def test_drawn_ways_and_shots_cover_what_is_offered_and_no_more() -> None:
    task = numbered([9] * 4)
    sampler = EpisodeSampler([task], EpisodeSpec((2, 9), (1, 20), 3), 0, "x")
    episodes = [sampler.episode(index) for index in range(200)]
    assert {episode.ways for episode in episodes} == {2, 3, 4}
    assert {len(e.support_ids) // e.ways for e in episodes} == {1, 2, 3, 4, 5, 6}
    assert {len(e.query_ids) // e.ways for e in episodes} == {3}


def test_queries_shrink_where_shots_are_drawn() -> None:
    episode = EpisodeSampler([numbered([3, 30])], EpisodeSpec(2, (1, 2), 15), 0, "x").episode(0)
    by_size = {int(n) for n in torch.bincount(episode.query_labels)}
    assert by_size == {2, 15}


def test_imbalance_spreads_the_shots_around_their_mean() -> None:
    sampler = EpisodeSampler([numbered([40] * 6)], EpisodeSpec(6, 10, 5, imbalance=0.5), 0, "x")
    counts = torch.cat([torch.bincount(sampler.episode(index).support_labels) for index in range(100)])
    assert (int(counts.min()), int(counts.max())) == (5, 15)
    assert abs(counts.float().mean() - 10) < 0.6


def test_within_a_family_all_classes_are_of_one() -> None:
    families = ("Greek",) * 5 + ("Korean",) * 6 + ("Latin",) * 2
    task = numbered([4] * 13, families=families)
    sampler = EpisodeSampler([task], EpisodeSpec(5, 1, 1, within_family=True), 0, "x")
    home = dict(zip(task.classes, families, strict=True))
    seen = [{home[name] for name in sampler.episode(index).classes} for index in range(60)]
    assert all(len(families) == 1 for families in seen)
    assert set.union(*seen) == {"Greek", "Korean"}  # Latin has too few


def test_a_share_of_the_episodes_stays_within_a_family() -> None:
    families = ("Greek",) * 5 + ("Korean",) * 6
    task = numbered([4] * 11, families=families)
    sampler = EpisodeSampler([task], EpisodeSpec(4, 1, 1, within_family=0.6), 0, "x")
    home = dict(zip(task.classes, families, strict=True))
    alone = [len({home[name] for name in sampler.episode(index).classes}) == 1 for index in range(600)]
    by_chance = (math.comb(5, 4) + math.comb(6, 4)) / math.comb(11, 4)
    assert abs(np.mean(alone) - (0.6 + 0.4 * by_chance)) < 0.06


def test_tasks_are_drawn_as_often_as_their_weights_say() -> None:
    tasks = [numbered([3, 3], name="often"), numbered([3, 3], name="seldom"), numbered([3, 3], name="never")]
    sampler = EpisodeSampler(tasks, EpisodeSpec(2, 1, 1), 0, "x", weights=[3, 1, 0])
    drawn = Counter(sampler.episode(index).task for index in range(1000))
    assert set(drawn) == {"often", "seldom"}
    assert abs(drawn["often"] - 750) < 60


def test_augmentation_of_the_support_leaves_the_query_alone() -> None:
    task = numbered([300, 300])
    plain = EpisodeSampler([task], EpisodeSpec(2, 5, 5), 0, "x").episode(0)
    support = EpisodeSampler([task], EpisodeSpec(2, 5, 5, augment="photo", augment_side="support"), 0, "x").episode(0)
    both = EpisodeSampler([task], EpisodeSpec(2, 5, 5, augment="photo"), 0, "x").episode(0)
    assert torch.equal(plain.query_inputs, support.query_inputs)
    assert not torch.equal(plain.support_inputs, support.support_inputs)
    assert not torch.equal(plain.query_inputs, both.query_inputs)
    assert np.array_equal(plain.query_ids, both.query_ids)


def test_shrunk_images_are_those_of_the_same_episode() -> None:
    spec = EpisodeSpec(2, (1, 5), 5, rotations=True, augment="photo")
    sampler = EpisodeSampler([numbered([300, 300])], spec, 0, "x")
    for index in range(3):
        whole, small = sampler.episode(index), sampler.shrunk(2).episode(index)
        for name in ("support", "query"):
            means = getattr(whole, f"{name}_inputs").unfold(2, 2, 2).unfold(3, 2, 2).mean((-1, -2))
            torch.testing.assert_close(getattr(small, f"{name}_inputs"), means)
            assert torch.equal(getattr(small, f"{name}_labels"), getattr(whole, f"{name}_labels"))


def test_series_and_tables_come_as_they_are() -> None:
    samples = np.linspace(-3, 3, 60, dtype=np.float32).reshape(20, 3)
    task = Task("rows", "tabular", InMemory(samples), np.repeat([0, 1], 10), ("a", "b"))
    episode = EpisodeSampler([task], EpisodeSpec(2, 2, 3), 0, "x").episode(0)
    assert np.array_equal(episode.query_inputs.numpy(), samples[episode.query_ids])
    with pytest.raises(MetanasError, match="'rows' holds no images: leave out rotations and augment"):
        EpisodeSampler([task], EpisodeSpec(2, 2, 3, augment="affine"), 0, "x")


@pytest.mark.parametrize(
    ("task", "spec", "message"),
    [
        (numbered([9, 9]), EpisodeSpec(5), "'numbers' has 2 classes, 3 short of an episode of 5 ways"),
        (
            numbered([3, 9]),
            EpisodeSpec(2, 2, 4),
            "'class 0' of task 'numbers' has 3 samples, 3 short of 2 support and 4",
        ),
        (
            numbered([1, 9]),
            EpisodeSpec(2, (1, 4), 4),
            "'class 0' of task 'numbers' has 1 samples, 1 short of 1 support",
        ),
        (
            numbered([9, 9], [0] * 9 + [0, 1, 2] * 3),
            EpisodeSpec(2, 1, 1),
            "'class 0' of task 'numbers' lies in one group",
        ),
        (
            numbered([9] * 3, families=("A", "A", "B")),
            EpisodeSpec(3, 1, 1, within_family=True),
            "has 2 classes in its largest family, 1 short of an episode of 3 ways",
        ),
        (
            numbered([9] * 3, families=("A", "A", "B")),
            EpisodeSpec(3, 1, 1, within_family=0.5),
            "has 2 classes in its largest family, 1 short of an episode of 3 ways",
        ),
        (
            numbered([9, 9]),
            EpisodeSpec(2, 1, 1, within_family=True),
            "has no families of classes: leave out within_family",
        ),
    ],
)
def test_an_impossible_request_says_what_is_short(task: Task, spec: EpisodeSpec, message: str) -> None:
    with pytest.raises(MetanasError, match=message):
        EpisodeSampler([task], spec, 0, "x")


def test_groups_that_cannot_be_divided_name_the_shortest_class() -> None:
    task = numbered([10, 10], ([0] * 9 + [1]) * 2)
    sampler = EpisodeSampler([task], EpisodeSpec(2, 1, 5), 0, "x")
    assert len(sampler.episode(0).query_ids) == 10
    with pytest.raises(MetanasError, match="is 1 support samples short of 2 support and 5 query samples that share no"):
        EpisodeSampler([task], EpisodeSpec(2, 2, 5), 0, "x")


@pytest.mark.parametrize(
    ("task", "spec", "most"),
    [
        (numbered([10, 10], ([0] * 2 + [1] * 8) * 2), EpisodeSpec(2, (1, 5), 5), 5),
        (numbered([12, 12], ([0] * 6 + [1] * 6) * 2), EpisodeSpec(2, (1, 10), 5), 6),
        (numbered([12, 12], ([0] * 6 + [1] * 6) * 2), EpisodeSpec(2, 5, 5, imbalance=0.6), 6),
    ],
)
def test_drawn_shots_are_clipped_to_what_the_groups_offer(task: Task, spec: EpisodeSpec, most: int) -> None:
    sampler, assigned = EpisodeSampler([task], spec, 0, "x"), task.groups
    assert assigned is not None
    drawn = set[int]()
    for index in range(100):
        episode = sampler.episode(index)
        assert not {*assigned[episode.support_ids]} & {*assigned[episode.query_ids]}
        for labels in (episode.support_labels, episode.query_labels):
            assert set(labels.tolist()) == {0, 1}
        drawn |= {*torch.bincount(episode.support_labels).tolist()}
    assert (min(drawn) < most, max(drawn)) == (True, most)


def test_classes_that_cannot_be_divided_together_are_named_at_once_where_all_are_drawn() -> None:
    """One wants the first group on the query side, the other the second."""
    task = numbered([7, 7], [0] * 2 + [1] * 5 + [0] * 5 + [1] * 2)
    with pytest.raises(MetanasError, match="samples that share no group: add samples of further groups"):
        EpisodeSampler([task], EpisodeSpec(2, 2, 5), 0, "x")


def test_of_classes_that_cannot_be_divided_together_others_are_drawn() -> None:
    """Of four classes two pairs lie alike in the groups; one of each pair cannot serve in one episode."""
    groups = ([0] * 2 + [1] * 5) * 2 + ([0] * 5 + [1] * 2) * 2
    sampler = EpisodeSampler([numbered([7] * 4, groups)], EpisodeSpec(2, 2, 5), 0, "x")
    pairs = {tuple(int(name[-1]) for name in sampler.episode(index).classes) for index in range(40)}
    assert pairs == {(0, 1), (1, 0), (2, 3), (3, 2)}
    hopeless = numbered([7] * 3, [0] * 2 + [1] * 5 + [0] * 5 + [1] * 2 + [2] * 2 + [3] * 5)
    found = EpisodeSampler([hopeless], EpisodeSpec((2, 3), 2, 5), 0, "x")
    assert all(len(found.episode(index).classes) == 2 for index in range(20))


def test_no_task_is_an_error() -> None:
    with pytest.raises(MetanasError, match="no task to draw episodes from for 'test'"):
        EpisodeSampler([], EpisodeSpec(), 0, "test")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"ways": 1}, "ways: 1 is not possible, expected 2 or more"),
        ({"ways": (9, 3)}, r"ways: \(9, 3\) is not possible"),
        ({"shots": 0}, "shots: 0 is not possible"),
        ({"queries": 0}, "queries: 0 is not possible"),
        ({"imbalance": 1.0}, "imbalance: 1.0 is not possible"),
        ({"augment": "fog"}, "augment: 'fog' is not known, expected one of affine, handwriting, glyph, photo, surface"),
    ],
)
def test_a_spec_refuses_what_makes_no_sense(options: dict[str, object], message: str) -> None:
    with pytest.raises(MetanasError, match=message):
        EpisodeSpec(**options)  # type: ignore[arg-type]
