"""A run's folder: what lies in it, written so that an interruption never leaves half a file."""

import json
import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, ClassVar
from uuid import uuid4

from metanas.api import Architecture, Candidate, Evaluation, Show
from metanas.config import RunConfig, TaskConfig, as_yaml, load_config, read_config, read_keys, same_run
from metanas.errors import MetanasError
from metanas.files import load_arrays, read_json, save_arrays, write_text
from metanas.learning.state import State
from metanas.measuring.latency import LATENCY
from metanas.search.schedule import Progress
from metanas.store import Store

DATA = "data.json"
BEFORE = (LATENCY, "versions.json")
"""What is written before config.yaml."""
LIBRARIES = ("metanas", "torch", "torchvision", "numpy", "scikit-learn", "ray")


@dataclass(frozen=True)
class Folder:
    """What a command writes: config.yaml (whole), versions.json, data.json (the content hash of every task), log.jsonl,
    store.sqlite, checkpoint/, its results."""

    COMMAND: ClassVar[str]
    """What wrote it and goes on with it."""
    path: Path

    def begin(self, config: RunConfig | TaskConfig, resume: bool) -> None:
        """Makes the folder, or makes sure that it holds this very run, which may go on with other workers."""
        file = self.path / "config.yaml"
        if file.exists():
            if not resume:
                raise MetanasError(
                    f"'{self.path}' already holds a run; continue it with --resume, or give another --out."
                )
            if not same_run(read_config(file, type(config)), config):
                raise MetanasError(
                    f"'{self.path}' holds a run of another configuration (see its config.yaml); resume with that one: "
                    f"{self._again}."
                )
        else:
            if foreign := self._foreign():
                raise MetanasError(
                    f"'{self.path}' holds '{foreign}' and no config.yaml, so it is no run, or a damaged one; give "
                    "another --out, or empty it."
                )
            if config.store is not None:
                with Store(config.store):
                    pass  # what is wrong with it is told before anything is written
            self.path.mkdir(parents=True, exist_ok=True)
            self.write_json("versions.json", {"run": f"{self.path.name}-{uuid4().hex[:8]}", **_versions(config.seed)})
        write_text(file, as_yaml(config))

    def _foreign(self) -> str | None:
        """What lies in the folder, but for what may be there before the configuration is."""
        names = sorted(place.name for place in self.path.iterdir()) if self.path.is_dir() else []
        return next((n for n in names if n not in BEFORE and not n.endswith(".partial")), None)

    @property
    def id(self) -> str:
        """The run's name in the store, given when it was begun: the folder may be moved, and a store be shared."""
        versions = self.read_json("versions.json")
        return str(versions.get("run", self.path.name))  # runs of older versions go by their folders' names

    @property
    def _again(self) -> str:
        return f"{self.COMMAND} {self.path / 'config.yaml'} --out {self.path} --resume"

    def _config(self) -> Path:
        """Raises MetanasError where there is none."""
        if not (self.path / "config.yaml").is_file():
            raise MetanasError(
                f"'{self.path}' is no run: it has no config.yaml; give a folder that `{self.COMMAND} --out` wrote."
            )
        return self.path / "config.yaml"

    @property
    def keys(self) -> dict[str, Any]:
        """What config.yaml says, as it stands. Raises MetanasError where there is none, and for a damaged one."""
        return read_keys(self._config())

    @property
    def shares_store(self) -> bool:
        """Whether the configuration names a database, in which other runs may be."""
        return self.keys.get("store") is not None

    @property
    def store_url(self) -> str:
        """Of the database that the configuration names, or of the folder's own, which holds this run alone."""
        return str(self.keys["store"] if self.shares_store else f"sqlite:///{self.path / 'store.sqlite'}")

    def store(self) -> Store:
        return Store(self.store_url)

    def write_json(self, name: str, content: Any) -> None:
        write_text(self.path / name, json.dumps(content, indent=1))

    def read_json(self, name: str) -> Any:
        try:
            return read_json(
                self.path / name, "remove it and repeat the command that wrote it, with --resume where it takes that"
            )
        except FileNotFoundError as error:
            raise MetanasError(
                f"the run '{self.path}' has no {name}, it did not finish; continue it with `{self._again}`."
            ) from error

    def log(self) -> list[dict[str, Any]]:
        """The lines of log.jsonl, none where there is no such file. Raises MetanasError for one that is not JSON."""
        path = self.path / "log.jsonl"
        lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
        found = []
        for number, line in enumerate(lines, 1):
            try:
                found.append(json.loads(line))
            except ValueError as error:
                raise MetanasError(f"'{path}', line {number} is not JSON ({error}); remove that line.") from error
        return found

    def tell_changes(self, contents: Mapping[str, str], show: Show) -> None:
        """Notes the content hash of each task in data.json; where one is noted, tells `show` which tasks have another.

        A run goes on all the same. Before its log begins nothing was learned, so that what is there now counts.
        """
        if not (self.path / DATA).is_file() or not (self.path / "log.jsonl").is_file():
            self.write_json(DATA, dict(contents))
            return
        changed = sorted({task for task, _ in contents.items() ^ self.read_json(DATA).items()})
        if changed:
            more = f" and {len(changed) - 3} more" if len(changed) > 3 else ""
            text = (
                f"the data of {', '.join(changed[:3])}{more} is not what '{self.path}' began with (changed, "
                "added or removed): put it back, or take the result as one of both."
            )
            show({"event": "note", "text": text})

    # Checkpoints: files of one stem, and one file that names the last whole ones.

    def save(self, stem: str, content: Any, state: State) -> None:
        """A checkpoint in place of the last one."""
        base = self.path / "checkpoint"
        base.mkdir(exist_ok=True)
        save_arrays(base / f"{stem}.safetensors", state)
        write_text(base / f"{stem}.json", json.dumps(content))
        write_text(base / "last", stem)
        for old in base.iterdir():
            if old.name != "last" and not old.name.startswith(stem):
                old.unlink()

    def last(self) -> tuple[Any, State] | None:
        """The last checkpoint, None where there is none. Raises MetanasError for a damaged one."""
        base = self.path / "checkpoint"
        if not (base / "last").is_file():
            return None
        stem = (base / "last").read_text(encoding="utf-8").strip()
        to_do = f"put it back from a copy, or remove the folder '{base}' and begin anew with `{self._again}`"
        try:
            content = read_json(base / f"{stem}.json", to_do)
        except FileNotFoundError as error:
            raise MetanasError(f"'{error.filename}', the last checkpoint of the run, is missing; {to_do}.") from error
        return content, load_arrays(base / f"{stem}.safetensors")


class RunFolder(Folder):
    """The files of one meta-training run, by name.

    Beside those of every folder repeat.yaml (the configuration by steps), weights.safetensors, population.json,
    baselines/, evaluation.json, report.html; latency.json where latency is an objective, a limit, a cost or
    a block of the predictor.
    """

    COMMAND = "metanas train"

    @property
    def config(self) -> RunConfig:
        return load_config(self._config())

    def weights(self, name: str = "weights.safetensors") -> State:
        """Saved weights and meta-parameters, of the run's SuperNet or of a baseline."""
        path = self.path / name
        if not path.is_file():
            raise MetanasError(f"the run '{self.path}' has no {name}, it did not finish; continue it with --resume.")
        return load_arrays(path)

    @property
    def chosen(self) -> Architecture:
        return tuple(self.read_json("population.json")["chosen"])

    @property
    def members(self) -> list[Candidate]:
        """The last population as it was measured."""
        return [Candidate.of(row) for row in self.read_json("population.json")["population"]]

    @property
    def population(self) -> list[Architecture]:
        """The last population, most accurate first."""
        return [member.architecture for member in sorted(self.members, key=lambda member: -member.accuracy)]

    def save_checkpoint(self, progress: Progress, state: State, strategy: dict[str, Any]) -> None:
        stem = f"{int(state['version']):08d}-{progress.phase}"
        self.save(stem, {"progress": asdict(progress), "strategy": strategy}, state)

    def load_checkpoint(self) -> tuple[Progress, State, dict[str, Any]] | None:
        found = self.last()
        if found is None:
            return None
        content, state = found
        return Progress(**content["progress"]), state, content["strategy"]


def generation_lines(log: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """What a log says of each generation: the last word, where a resumed run went through one again."""
    return list({line["generation"]: line for line in log if line["event"] == "generation"}.values())


class Recorder:
    """Writes what a search reports: log lines and store rows. `show` is told every line."""

    def __init__(self, folder: Folder, store: Store, show: Show) -> None:
        self.folder, self._store, self._show = folder, store, show

    def event(self, event: str, **record: Any) -> None:
        line = {"event": event, **record}
        with (self.folder.path / "log.jsonl").open("a", encoding="utf-8") as log:
            log.write(json.dumps(line) + "\n")
        self._show(line)

    def record(self, evaluations: Sequence[Evaluation]) -> None:
        self._store.add(self.folder.id, evaluations)


def _versions(seed: int) -> dict[str, Any]:
    return {
        "python": platform.python_version(),
        **{name: version(name) for name in LIBRARIES},
        "system": platform.platform(),
        "cores": os.cpu_count(),
        "seed": seed,
    }
