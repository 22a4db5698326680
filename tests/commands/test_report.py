"""The report tells what the run's files say, says what is missing, and is one self-contained page."""

import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
import yaml
from scipy import stats

from metanas.api import Architecture, Evaluation
from metanas.commands.figures import GeneEffect
from metanas.commands.report import write_report
from metanas.errors import MetanasError
from metanas.run import RunFolder
from metanas.store import Store

BASELINES = {
    "random architecture": 0.03,
    "conv-4": 0.02,
    "frozen features, nearest prototype": 0.0,
    "from scratch": 0.2,
}
CONFIG: dict[str, Any] = {
    "name": "digits",
    "seed": 3,
    "pool": {"name": "glyphs-to-digits", "sources": [{"name": "glyphs", "kind": "glyphs"}]},
    "hold_out": None,
    "train": {"ways": 20, "shots": 2, "rotations": False},
    "test": [{"name": "10-way 5-shot", "episodes": 60, "draw": {"ways": 10, "shots": 5}}],
    "space": {"name": "stages", "options": {}},
    "predictor": {"floor": 0.2},
    "budget": {"minutes": 4.0},
}


def draw(architecture: Architecture) -> str:
    return f'<svg xmlns="http://www.w3.org/2000/svg"><text>drawn {architecture}</text></svg>'


def describe(architecture: Architecture) -> str:
    return f"described {architecture}"


def row(architecture: Architecture, accuracy: float) -> dict[str, Any]:
    size = sum(architecture)
    return {
        "architecture": list(architecture),
        "accuracy": accuracy,
        "params": 40_000 + 9_000 * size,
        "macs": 3_000_000 + 1_500_000 * size,
    }


def write_log(run: Path, lines: list[dict[str, Any]]) -> None:
    (run / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def log_of(rng: np.random.Generator, generations: list[list[dict[str, Any]]]) -> list[dict[str, Any]]:
    """Warm-up and widening of 60 seconds each, then generations of 30; invented, like all numbers here."""
    lines: list[dict[str, Any]] = []
    seconds, step = 0.0, 0
    for phase, count in (("warmup", 12), ("widening", 12), *(("generation", 5) for _ in generations)):
        for _ in range(count):
            seconds, step = seconds + 5.0, step + 20
            loss = 0.3 + 2.5 * np.exp(-seconds / 40) + 0.03 * rng.normal() + 0.2 * (phase == "widening")
            lines.append({"event": "steps", "phase": phase, "step": step, "seconds": seconds, "loss": loss,
                          "accuracy": 1 / (1 + loss), "generation": 0})  # fmt: skip
        lines.append({"event": "phase", "phase": "weights", "seconds": seconds, "duration": 5.0 * count})
        if phase == "generation":
            number = sum(line["event"] == "generation" for line in lines)
            seconds += 5.0
            lines.append({"event": "phase", "phase": "fitness", "seconds": seconds, "duration": 4.5})
            guesses = rng.normal(-0.02, 0.02, size=10)
            lines.append({
                "event": "generation", "generation": number, "seconds": seconds,
                "best": max(r["accuracy"] for r in generations[number]), "population": generations[number][:6],
                "predictor": {"tau": 0.1 + 0.15 * number if number else None, "unseen": 10, "used": number > 1,
                              "pruned": 8 * (number > 1)},
                "predicted": [[g, g + 0.01 * rng.normal()] for g in guesses] if number else [],
                "baselines": {key: list(range(10)) if number else [] for key in ("params", "macs", "nearest")},
            })  # fmt: skip
    return lines


def record(generation: int, measured: dict[str, Any], episode: int, accuracy: float | None) -> Evaluation:
    return Evaluation(
        architecture=tuple(measured["architecture"]), space="stages", generation=generation, weights_version=20,
        split="validation", task="glyphs", episode=episode, seed=3, params=measured["params"], macs=measured["macs"],
        seconds=0.03, status="failed" if accuracy is None else "ok", accuracy=accuracy,
        error="ValueError: too <small>" if accuracy is None else None,
    )  # fmt: skip


def write_run(run: Path) -> Path:
    """A whole run's folder, of seeded random numbers."""
    rng = np.random.default_rng(0)
    run.mkdir()
    (run / "config.yaml").write_text(yaml.safe_dump(CONFIG, sort_keys=False))
    (run / "versions.json").write_text(json.dumps({"python": "3.11.0", "metanas": "0.1.0", "cores": 2, "seed": 3}))
    drawn: dict[Architecture, None] = {}
    while len(drawn) < 40:
        drawn[tuple(int(gene) for gene in rng.integers(3, size=6))] = None
    architectures = list(drawn)
    generations = []
    for number in range(4):
        measured = [
            row(a, float(np.clip(0.8 + 0.03 * number + 0.01 * sum(a) + 0.02 * rng.normal(), 0, 0.99)))
            for a in architectures[10 * number : 10 * number + 10]
        ]
        generations.append(sorted(measured, key=lambda r: -r["accuracy"]))
    with Store(f"sqlite:///{run / 'store.sqlite'}") as store:
        for number, measured in enumerate(generations):
            store.add(run.name, [record(number, r, episode, r["accuracy"]) for r in measured for episode in range(2)])
    write_log(run, log_of(rng, generations))
    best = generations[-1][0]
    (run / "population.json").write_text(json.dumps({
        "space": "stages", "chosen": best["architecture"], "population": generations[-1][:6],
        "finalists": [r | {"accuracy": r["accuracy"] - 0.01} for r in generations[-1][:3]],
    }))  # fmt: skip
    (run / "steps.json").write_text(json.dumps({"minutes": None, "warmup_steps": 240, "rates": [[1, 0.1]]}))
    base = rng.normal(0.93, 0.03, size=60)
    methods = [{"method": name, "architecture": None, "note": "adapted the same way",
                "accuracies": np.clip(base - lead + 0.02 * rng.normal(size=60), 0, 1).tolist()}
               for name, lead in {"conv-4": BASELINES["conv-4"], "metanas": 0.0, **BASELINES}.items()]  # fmt: skip
    tests = [{"name": "10-way 5-shot", "split": "test", "episodes": 60, "seed": 3, "spec": {}, "methods": methods}]
    (run / "evaluation.json").write_text(json.dumps(tests))
    return run


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return write_run(tmp_path / "my run")


def page_of(run: Path) -> str:
    return write_report(RunFolder(run), draw, describe).read_text(encoding="utf-8")


class Tables(HTMLParser):
    """The cells of every table row, as text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.rows: list[list[str]] = []
        self._inside = False
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        if tag == "tr":
            self.rows.append([])
        elif tag in ("td", "th"):
            self.rows[-1].append("")
            self._inside = True

    def handle_endtag(self, tag: str) -> None:
        self._inside = self._inside and tag not in ("td", "th")

    def handle_data(self, data: str) -> None:
        if self._inside:
            self.rows[-1][-1] += data


def cells(page: str, first: str) -> list[str]:
    """The one row that begins with `first`."""
    found = [row for row in Tables(page).rows if row and row[0] == first]
    assert len(found) == 1, (first, len(found))
    return found[0]


def test_every_method_stands_with_its_interval_and_paired_test(run: Path) -> None:
    page = page_of(run)
    methods = {m["method"]: m["accuracies"] for m in json.loads((run / "evaluation.json").read_text())[0]["methods"]}
    ours = np.array(methods["metanas"])
    for name, accuracies in methods.items():
        interval = stats.t.interval(0.95, 59, loc=np.mean(accuracies), scale=stats.sem(accuracies))
        expected = [f"{100 * np.mean(accuracies):.1f}%", f"{100 * interval[0]:.1f}% to {100 * interval[1]:.1f}%"]
        if name != "metanas":
            test = stats.ttest_rel(ours, accuracies)
            low, high = test.confidence_interval(0.95)
            p = "< 0.001" if test.pvalue < 0.001 else f"{test.pvalue:.3f}"
            lead = f"{100 * (ours.mean() - np.mean(accuracies)):+.1f}"
            expected += [lead, f"{100 * low:+.1f} to {100 * high:+.1f}", p]
        else:
            expected += ["", "", ""]
        assert [name, *expected, "adapted the same way"] in Tables(page).rows
    names = [row[0] for row in Tables(page).rows if row and row[0] in methods]
    assert names[0] == "metanas", "ours first, whatever the file's order"


def test_a_baseline_that_is_not_beaten_is_named(run: Path) -> None:
    assert "not clearly above: frozen features, nearest prototype." in page_of(run)
    tests = json.loads((run / "evaluation.json").read_text())
    tests[0]["methods"] = [m for m in tests[0]["methods"] if m["method"] in ("metanas", "from scratch")]
    (run / "evaluation.json").write_text(json.dumps(tests))
    assert "It is above every baseline." in page_of(run)


def test_one_episode_has_no_interval_and_no_verdict(run: Path) -> None:
    tests = json.loads((run / "evaluation.json").read_text())
    for method in tests[0]["methods"]:
        method["accuracies"] = method["accuracies"][:1]
    (run / "evaluation.json").write_text(json.dumps(tests))
    page = page_of(run)
    assert cells(page, "from scratch")[4:6] == ["- to -", "-"]
    assert "not clearly above: conv-4; " in page


def test_architectures_are_drawn_the_chosen_one_first(run: Path) -> None:
    page = page_of(run)
    population = json.loads((run / "population.json").read_text())
    drawings = re.findall(r"drawn (\([\d, ]+\))", page)
    chosen = str(tuple(population["chosen"]))
    assert drawings[:2] == [chosen, chosen], "once by itself, once among all"
    assert set(drawings) == {str(tuple(member["architecture"])) for member in population["population"]}
    assert f"<strong>Chosen:</strong> described {chosen}" in page


def test_pruning_and_effects_are_told(run: Path) -> None:
    assert "were measured all the same" not in page_of(run), "nothing was audited"
    lines = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    for line in lines:
        if line["event"] == "generation":
            used = line["predictor"]["used"]
            line["predictor"] |= {"audited": 2 * used, "winners": int(used), "why": "stands aside: too few"}
    (run / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    effects = [GeneEffect("gene 3: 5x5", 0.02), GeneEffect("gene 1: max", -0.01)]
    page = write_report(RunFolder(run), str, str, lambda _: effects).read_text(encoding="utf-8")
    assert "A dot is such a swap" not in page
    swaps = ((0.02, 0.01), (0.01, -0.02)), ((-0.01, -0.03), (-0.01, 0.0))
    measured = [replace(effect, measured=own) for effect, own in zip(effects, swaps, strict=True)]
    told = " ".join(write_report(RunFolder(run), str, str, lambda _: measured).read_text(encoding="utf-8").split())
    assert "of 4 the predictor gives 2 the sign that was measured" in told
    assert "Of 16 pruned candidates 4, drawn at random" in page
    assert "pruning missed about 8" in " ".join(page.split())
    assert "The last generation: stands aside: too few." in page
    assert "gene 3: 5x5" in page
    assert page.index("gene 3: 5x5") < page.index("gene 1: max")


def test_the_predictor_stands_beside_what_else_would_order(run: Path) -> None:
    log = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    pairs = np.array([pair for line in log for pair in line.get("predicted", [])])
    page = page_of(run)
    tau = stats.kendalltau(*pairs.T).statistic
    top = [set(np.argsort(-column)[:3]) for column in pairs.T]
    regret = pairs[:, 1].max() - pairs[pairs[:, 0].argmax(), 1]
    expected = [f"{tau:.2f}", f"{100 * len(top[0] & top[1]) / 3:.1f}%", f"{100 * regret:.1f}%"]
    assert cells(page, "predictor")[1:] == expected
    tau = stats.kendalltau(np.tile(np.arange(10), 3), pairs[:, 1]).statistic
    for baseline in ("parameters", "multiply-adds", "nearest architecture"):
        assert cells(page, baseline)[1] == f"{tau:.2f}"
    write_log(run, [{key: value for key, value in line.items() if key != "baselines"} for line in log])
    assert cells(page_of(run), "predictor")[1:] == expected, "a log of before"
    assert "nearest architecture" not in page_of(run)


def test_effects_are_drawn_for_a_run_of_one_generation(run: Path) -> None:
    """Its predictor learned, and was never asked."""
    lines = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    write_log(run, [line for line in lines if line["event"] != "generation" or line["generation"] == 0])
    page = write_report(RunFolder(run), str, str, lambda _: [GeneEffect("gene 3: 5x5", 0.02)]).read_text(
        encoding="utf-8"
    )
    assert "No predictor was asked yet" in page
    assert "gene 3: 5x5" in page


def test_what_is_missing_is_named_with_its_command(run: Path) -> None:
    evaluate, resume = f"metanas evaluate '{run}'", f"metanas train '{run / 'config.yaml'}' --out '{run}' --resume"
    escaped = {text: text.replace("'", "&#39;") for text in (evaluate, resume)}
    assert escaped[evaluate] not in page_of(run)
    assert escaped[resume] not in page_of(run)
    (run / "evaluation.json").unlink()
    assert escaped[evaluate] in page_of(run)
    for name in ("population.json", "log.jsonl", "store.sqlite", "versions.json", "steps.json"):
        (run / name).unlink()
    page = page_of(run)
    assert page.count(escaped[resume]) == 2
    assert "No predictor was asked yet" in page


def test_the_page_needs_nothing_from_outside(run: Path) -> None:
    page = page_of(run)
    addresses = set(re.findall(r"https?://[^\"'\s<>]+", page))
    assert addresses <= {"http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"}, "names, never fetched"
    assert not re.search(r"<(script|link|img|iframe|image)\b|@import|url\((?!#)", page)
    assert "default-src 'none'" in page
    assert sorted(path.name for path in run.iterdir() if path.suffix in (".html", ".partial")) == ["report.html"]


def test_charts_are_sound_and_share_no_ids(run: Path) -> None:
    page = page_of(run)
    charts = re.findall(r'<svg role="img".*?</svg>', page, re.DOTALL)
    assert len(charts) == 4
    for chart in charts:
        tree = ElementTree.fromstring(chart)
        assert tree.get("aria-label")
        own = {element.get("id") for element in tree.iter()}
        assert set(re.findall(r'(?:href="|url\()#([^")]+)', chart)) <= own
    ids = re.findall(r'\bid="([^"]+)"', page)
    assert len(ids) == len(set(ids))


def test_the_same_run_gives_the_same_bytes(run: Path) -> None:
    assert page_of(run) == page_of(run)


def test_names_are_text_not_markup(run: Path) -> None:
    tests = json.loads((run / "evaluation.json").read_text())
    tests[0]["name"] = tests[0]["methods"][0]["method"] = "<script>$x_1$ & more"
    (run / "evaluation.json").write_text(json.dumps(tests))
    page = page_of(run)
    assert "<script" not in page
    assert page.count("&lt;script&gt;$x_1$ &amp; more") >= 3, "heading, table and chart"


def test_what_a_resumed_run_did_again_counts_once(run: Path) -> None:
    whole = page_of(run)
    lines = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    cut = next(i for i, line in enumerate(lines) if line.get("phase") == "widening") + 2
    undone = [line | {"loss": 99.0} if "loss" in line else line | {"duration": 999.0} for line in lines[cut : cut + 20]]
    write_log(run, [*lines[:cut], *undone, *lines[cut:]])
    assert page_of(run) == whole


def test_time_by_phase_adds_up(run: Path) -> None:
    page = page_of(run)
    assert cells(page, "warm-up")[1:5] == ["1.0 min", "", "1.0 min", "25.0%"]
    assert cells(page, "widening")[1:5] == ["1.0 min", "", "1.0 min", "25.0%"]
    assert cells(page, "generations")[1:5] == ["1.7 min", "18.0 s", "2.0 min", "49.2%"]
    assert cells(page, "everything else")[1:5] == ["", "", "2.0 s", "0.8%"]
    assert "settling" not in {row[0] for row in Tables(page).rows if row}, "none was done"


def test_what_is_measured_after_a_phase_counts_to_it(run: Path) -> None:
    """The first population follows widening."""
    steps = {"event": "steps", "generation": 0, "loss": 1.0, "accuracy": 0.5}
    log = [
        steps | {"phase": "widening", "step": 1, "seconds": 3.0},
        {"event": "phase", "phase": "weights", "seconds": 3.0, "duration": 3.0},
        {"event": "phase", "phase": "fitness", "seconds": 5.0, "duration": 2.0},
        steps | {"phase": "settling", "step": 2, "seconds": 11.0},
        {"event": "phase", "phase": "weights", "seconds": 11.0, "duration": 6.0},
    ]
    write_log(run, log)
    page = page_of(run)
    assert cells(page, "widening")[1:4] == ["3.0 s", "2.0 s", "5.0 s"]
    assert cells(page, "settling")[1:4] == ["6.0 s", "", "6.0 s"]
    assert not {"warm-up", "everything else"} & {row[0] for row in Tables(page).rows if row}


def test_the_error_of_the_latency_table_is_told(run: Path) -> None:
    assert "latency table" not in page_of(run)
    check = {"networks": 8, "median": 0.0312, "bias": -0.012}
    (run / "latency.json").write_text(json.dumps({"device": "this", "check": check, "seconds": {}}))
    assert "against 8 random networks measured whole" in page_of(run)
    assert "off by at most 3.1% (mean -1.2%)" in page_of(run)
    (run / "latency.json").write_text(json.dumps({"device": "this", "check": {"networks": 0}, "seconds": {}}))
    assert "latency table" not in page_of(run)


def test_failures_are_counted_and_shown(run: Path) -> None:
    assert "80 evaluations" in page_of(run)
    with Store(f"sqlite:///{run / 'store.sqlite'}") as store:
        store.add(run.name, [record(3, row((0,) * 6, 0.5), 0, None)])
    page = page_of(run)
    assert "81 evaluations in the store, one for each architecture and episode; 1 failed." in page
    assert "ValueError: too &lt;small&gt;" in page


def test_what_was_asked_is_told_in_words(run: Path) -> None:
    page = page_of(run)
    assert cells(page, "train")[1] == "ways 20, shots 2"
    assert cells(page, "test")[1] == "(10-way 5-shot, episodes 60, draw ways 10, shots 5)"
    assert "hold out" not in {row[0] for row in Tables(page).rows}
    assert "floor: 0.2" in page


def test_a_folder_that_is_no_run_and_broken_files_are_named(run: Path, tmp_path: Path) -> None:
    with pytest.raises(MetanasError, match="is no run: it has no config"):
        page_of(tmp_path)
    whole = (run / "config.yaml").read_text()
    (run / "config.yaml").write_text(whole + "[")
    with pytest.raises(MetanasError, match=r"config\.yaml' is not YAML: .*line"):
        page_of(run)
    (run / "config.yaml").write_text(whole)
    with (run / "log.jsonl").open("a") as log:
        log.write('{"event": "st')
    lines = len((run / "log.jsonl").read_text().splitlines())
    with pytest.raises(MetanasError, match=f"line {lines} is not JSON"):
        page_of(run)
    (run / "evaluation.json").write_text("[")
    (run / "log.jsonl").unlink()
    with pytest.raises(MetanasError, match=r"evaluation\.json' is not JSON"):
        page_of(run)
