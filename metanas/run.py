"""A run's folder: what lies in it, written so that an interruption never leaves half a file."""

import json
import os
import platform
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from safetensors.numpy import load_file

from metanas.api import Architecture, Candidate, Evaluation
from metanas.config import RunConfig, as_yaml, load_config
from metanas.errors import MetanasError
from metanas.files import save_arrays, write_text
from metanas.schedule import Progress
from metanas.state import State
from metanas.store import Store

LIBRARIES = ("metanas", "torch", "torchvision", "numpy", "scikit-learn", "ray")


@dataclass(frozen=True)
class RunFolder:
    """The files of one run, by name.

    config.yaml (whole), repeat.yaml (the same by steps), versions.json, log.jsonl, store.sqlite,
    weights.safetensors, population.json, checkpoint/, baselines/, evaluation.json, report.html; latency.json where
    latency is an objective, a limit or a cost.
    """

    path: Path

    @property
    def config(self) -> RunConfig:
        if not (self.path / "config.yaml").is_file():
            raise MetanasError(
                f"'{self.path}' is no run: it has no config.yaml; give a folder that `metanas train --out` wrote."
            )
        return load_config(self.path / "config.yaml")

    def begin(self, config: RunConfig, resume: bool) -> None:
        """Makes the folder, or makes sure that it holds this very run."""
        if (self.path / "config.yaml").exists():
            if not resume:
                raise MetanasError(
                    f"'{self.path}' already holds a run; continue it with --resume, or give another --out."
                )
            if as_yaml(self.config) != as_yaml(config):
                raise MetanasError(
                    f"'{self.path}' holds a run of another configuration (see its config.yaml); resume with that one: "
                    f"metanas train {self.path / 'config.yaml'} --out {self.path} --resume."
                )
            return
        self.path.mkdir(parents=True, exist_ok=True)
        self.write_json("versions.json", _versions(config.seed))
        write_text(self.path / "config.yaml", as_yaml(config))

    def store(self) -> Store:
        return Store(f"sqlite:///{self.path / 'store.sqlite'}")

    def write_json(self, name: str, content: Any) -> None:
        write_text(self.path / name, json.dumps(content, indent=1))

    def read_json(self, name: str) -> Any:
        try:
            return json.loads((self.path / name).read_text(encoding="utf-8"))
        except FileNotFoundError as error:
            raise MetanasError(
                f"the run '{self.path}' has no {name}, it did not finish; continue it with "
                f"`metanas train {self.path / 'config.yaml'} --out {self.path} --resume`."
            ) from error

    def weights(self, name: str = "weights.safetensors") -> State:
        """Saved weights and meta-parameters, of the run's SuperNet or of a baseline."""
        path = self.path / name
        if not path.is_file():
            raise MetanasError(f"the run '{self.path}' has no {name}, it did not finish; continue it with --resume.")
        return load_file(path)

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

    # Checkpoints: a folder a step, and one file that names the last whole one.

    def save_checkpoint(self, progress: Progress, state: State, strategy: dict[str, Any]) -> None:
        base = self.path / "checkpoint"
        base.mkdir(exist_ok=True)
        stem = f"{int(state['version']):08d}-{progress.phase}"
        save_arrays(base / f"{stem}.safetensors", state)
        write_text(base / f"{stem}.json", json.dumps({"progress": asdict(progress), "strategy": strategy}))
        write_text(base / "last", stem)
        for old in base.iterdir():
            if old.name != "last" and not old.name.startswith(stem):
                old.unlink()

    def load_checkpoint(self) -> tuple[Progress, State, dict[str, Any]] | None:
        base = self.path / "checkpoint"
        if not (base / "last").is_file():
            return None
        stem = (base / "last").read_text().strip()
        content = json.loads((base / f"{stem}.json").read_text())
        return Progress(**content["progress"]), load_file(base / f"{stem}.safetensors"), content["strategy"]


class RunListener:
    """Writes what a search reports: log lines, store rows, checkpoints."""

    def __init__(self, folder: RunFolder, store: Store, save: Any, show: Any) -> None:
        self.folder, self._store, self._save, self._show = folder, store, save, show

    def event(self, event: str, **record: Any) -> None:
        line = {"event": event, **record}
        with (self.folder.path / "log.jsonl").open("a", encoding="utf-8") as log:
            log.write(json.dumps(line) + "\n")
        self._show(line)

    def record(self, evaluations: Sequence[Evaluation]) -> None:
        self._store.add(self.folder.path.name, evaluations)

    def checkpoint(self, progress: Progress) -> None:
        self._save(progress)


def _versions(seed: int) -> dict[str, Any]:
    return {
        "python": platform.python_version(),
        **{name: version(name) for name in LIBRARIES},
        "system": platform.platform(),
        "cores": os.cpu_count(),
        "seed": seed,
    }
