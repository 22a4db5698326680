"""The configurations of runs: one YAML file each, unknown keys refused, `--set a.b=c` on top."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar

import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, PositiveFloat, PositiveInt, model_validator
from sqlalchemy import make_url
from sqlalchemy.exc import ArgumentError

from metanas.errors import MetanasError
from metanas.files import read_yaml
from metanas.learning.learner import Inner
from metanas.learning.transfer import Adaptation
from metanas.learning.worker import WARM_UP
from metanas.measuring.measures import Estimator
from metanas.measuring.standalone import Training
from metanas.parsing import STRICT, parse
from metanas.search.objective import LatencyReward
from metanas.search.schedule import Budget, SearchBudget, SearchSettings
from metanas.spaces.scaling import Coefficients
from tasks.episodes import EpisodeSpec
from tasks.pool import SPLITS, Source
from tasks.task import ImageForm


class _Section(BaseModel):
    model_config = ConfigDict(**STRICT, frozen=True)


def _without_password(url: str) -> str:
    try:
        parsed = make_url(url)
    except ArgumentError as error:
        raise MetanasError("store: expected a URL such as postgresql+psycopg://me@host/evaluations.") from error
    if parsed.password is not None or "password" in parsed.query:
        raise MetanasError(
            "store: its URL holds a password, which would lie in the run's folder for all to read; leave it out, and "
            "name it in PGPASSWORD or ~/.pgpass."
        )
    return url


StoreUrl = Annotated[str, AfterValidator(_without_password)]
"""A database that SQLAlchemy knows. Its password comes from elsewhere, as PostgreSQL reads it from ~/.pgpass."""


Seed = Annotated[int, Field(ge=0, lt=2**32)]
"""As scikit-learn takes it."""


class SpaceConfig(_Section):
    """The search space by name, and the arguments of its class."""

    name: Literal["stages", "cells", "mobile"] = "stages"
    options: dict[str, Any] = {}


class PredictorConfig(_Section):
    """The predictor prunes while its rank correlation on unseen evaluations is at least `floor`; above 1: never.

    `audit` of a generation's offspring are drawn at random from those that it would prune, to estimate what it misses.
    It sees `blocks` of an architecture, by default those that cost nothing; the block "zero-cost" holds `scores`.
    """

    floor: float = 0.2
    audit: int = Field(default=1, ge=0)
    blocks: list[str] | None = None
    scores: list[Literal["naswot", "synflow", "snip", "gradient_norm"]] = Field(
        default=["naswot", "synflow"], min_length=1
    )


class TestConfig(_Section):
    """A named set of test episodes."""

    name: str
    episodes: PositiveInt = 100
    draw: EpisodeSpec


class RunConfig(_Section):
    """Everything that a run depends on beside the data itself."""

    name: str
    seed: Seed = 0
    pool: dict[str, Any] | str  # a pool, or the path of its YAML file
    hold_out: str | None = None
    image: ImageForm = ImageForm()
    warmup_size: PositiveInt | None = None  # of the images of warm-up; None for image.size
    train: EpisodeSpec
    validation: EpisodeSpec
    test: list[TestConfig] = Field(min_length=1)
    space: SpaceConfig = SpaceConfig()
    inner: Inner = Inner()
    search: SearchSettings = SearchSettings()
    objective: LatencyReward | None = None  # None for accuracy
    predictor: PredictorConfig = PredictorConfig()
    budget: Budget = Budget()
    adaptation: Adaptation = Adaptation()
    workers: int = Field(default=2, ge=0)  # Ray actors; 0 runs in this process
    store: StoreUrl | None = None  # None for SQLite in the run's folder
    precision: Literal["auto", "float32", "bfloat16"] = "auto"  # what pays where the run begins; its folder says which

    @model_validator(mode="after")
    def _own_names(self) -> Self:
        names = [test.name for test in self.test]
        for number, name in enumerate(names):
            if name in (*SPLITS[:2], WARM_UP, *names[:number]):
                raise MetanasError(
                    f"test.{number}.name: '{name}' is the name of another test, or of the episodes of warm-up, "
                    "training or validation; give every test a name of its own."
                )
        return self

    @model_validator(mode="after")
    def _warmup_is_smaller(self) -> Self:
        if self.warmup_size is not None and self.warmup_size > self.image.size:
            raise MetanasError(
                f"warmup_size: {self.warmup_size} is more than image.size {self.image.size}; give fewer pixels, or "
                "leave it out."
            )
        return self


class TaskConfig(_Section):
    """One ordinary task: what it is, and how the network that is found for it is trained in the end.

    `data` is a source as pools have them; `task` names one of its tasks where it has several.
    """

    name: str
    seed: Seed = 0
    data: Source | None = None
    task: str | None = None
    image: ImageForm = ImageForm()
    final: Training = Training()
    store: StoreUrl | None = None  # None for SQLite in the run's folder


class SearchConfig(TaskConfig):
    """A search for one architecture, on a task or on the `table` of a benchmark.

    `batch` architectures are asked for at a time. `limits` are the most of each cost. Latency, where `objective`,
    `limits` or the strategy ask for it, is measured on this device; a table has that of others, of which `device` names
    one. `learn_from` names folders of searches of other tasks over the same space, for the strategy "guided".
    """

    table: str | None = None
    device: str | None = None
    space: SpaceConfig = SpaceConfig()
    strategy: dict[str, Any] = {"name": "evolution"}
    population: PositiveInt = 20
    batch: PositiveInt = 4
    learn_from: tuple[str, ...] = ()
    limits: dict[str, float] = {}
    objective: LatencyReward | None = None  # None for accuracy
    evaluator: Estimator | None = None  # by the strategy: alone, or shared for ENAS
    budget: SearchBudget = SearchBudget()
    workers: int = Field(default=0, ge=0)  # Ray actors; 0 measures in this process


TRIAL = Training(epochs=5)


class EnlargeConfig(TaskConfig):
    """A larger task for what a run found: `depth` times the layers or cells, `width` times the channels.

    Or compound scaling of depth, width and the images' size by `phi`: with the `coefficients`, or without them with
    the best of a grid at phi 1, where `trial` is how each of its networks is trained.
    """

    depth: PositiveFloat = 1.0
    width: PositiveFloat = 1.0
    phi: PositiveFloat | None = None
    coefficients: Coefficients | None = None
    trial: Training = TRIAL

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        if self.phi is not None and (self.depth, self.width) != (1, 1):
            raise MetanasError("depth, width: 'phi' scales both; leave them out, or leave out 'phi'.")
        if self.phi is None and self.coefficients is not None:
            raise MetanasError("coefficients: they scale by 'phi', which is not given; add it, such as phi: 1.")
        if self.trial != TRIAL and (self.phi is None or self.coefficients is not None):
            raise MetanasError("trial: it is for finding coefficients by 'phi' alone; leave it out.")
        return self


C = TypeVar("C", bound=_Section)


def load_config(path: Path, settings: Sequence[str] = ()) -> RunConfig:
    """A meta-training run's file. Raises MetanasError."""
    config = read_config(path, RunConfig, settings)
    if isinstance(config.pool, str):
        pool = Path(config.pool)
        config = config.model_copy(update={"pool": str(pool if pool.is_absolute() else path.parent.absolute() / pool)})
    return config


def load_search(path: Path, settings: Sequence[str] = ()) -> SearchConfig:
    """A search's file, such as configs/search.yaml. Raises MetanasError."""
    return read_config(path, SearchConfig, settings)


def read_config(path: Path, kind: type[C], settings: Sequence[str] = ()) -> C:
    """Reads a YAML file and lays `settings` ("budget.minutes=15") over it. Raises MetanasError."""
    return parse(kind, read_keys(path, settings), str(path))


def read_keys(path: Path, settings: Sequence[str] = ()) -> dict[str, Any]:
    """The keys of a YAML file with `settings` laid over them. Raises MetanasError."""
    if not path.is_file():
        raise MetanasError(
            f"there is no configuration '{path}'; give the path of a YAML file such as configs/demo.yaml."
        )
    content = read_yaml(path)
    if not isinstance(content, dict):
        raise MetanasError(f"'{path}' holds no keys; a configuration starts from one of those in configs/.")
    for setting in settings:
        _set(content, setting)
    return content


def as_yaml(config: _Section) -> str:
    """The whole configuration, defaults included."""
    return yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


def same_run(one: _Section, other: _Section) -> bool:
    """Whether both give the same results: all but `workers` is the same."""
    first, second = (config.model_dump(mode="json", exclude={"workers"}) for config in (one, other))
    return first == second


def _set(content: dict[str, Any], setting: str) -> None:
    key, found, value = setting.partition("=")
    if not found:
        raise MetanasError(f"--set {setting}: expected KEY=VALUE, such as --set budget.minutes=15.")
    *path, last = key.split(".")
    section: Any = content
    try:
        for part in path:
            section = section[int(part)] if isinstance(section, list) else section.setdefault(part, {})
        section[int(last) if isinstance(section, list) else last] = yaml.safe_load(value)
    except yaml.YAMLError as error:
        raise MetanasError(f"--set {setting}: '{value}' is not YAML; put quotes around a text.") from error
    except (AttributeError, LookupError, TypeError, ValueError) as error:
        raise MetanasError(
            f"--set {setting}: the configuration has no place '{key}'; see the keys in the file."
        ) from error
