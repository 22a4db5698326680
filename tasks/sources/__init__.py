"""Where tasks come from: one module a kind of source, one function that gives its tasks.

The signature of the function is the schema of the source's keys in a pool file: names, types and defaults are checked
against it, so that a new kind is one function and one line in KINDS.
"""

import inspect
import os
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

from pydantic import ConfigDict, ValidationError, validate_call

from metanas.errors import MetanasError
from metanas.parsing import first_mistake
from tasks.task import ImageForm, Task

KINDS: Mapping[str, str] = {
    "folder": "tasks.sources.folder:load",
    "npz": "tasks.sources.npz:load",
    "table": "tasks.sources.tables:load",
    "series": "tasks.sources.series:load",
    "sklearn": "tasks.sources.sklearn_sets:load",
    "omniglot": "tasks.sources.omniglot:load",
    "cifar100": "tasks.sources.torchvision_sets:cifar100",
    "emnist": "tasks.sources.torchvision_sets:emnist",
    "fashion-mnist": "tasks.sources.torchvision_sets:fashion_mnist",
    "gtsrb": "tasks.sources.torchvision_sets:gtsrb",
    "tiny-imagenet": "tasks.sources.torchvision_sets:tiny_imagenet",
    "learn2learn": "tasks.sources.learn2learn_sets:load",
    "glyphs": "tasks.sources.glyphs:load",
    "surfaces": "tasks.sources.surfaces:load",
}
"""Kind of source -> module and function, imported when first used."""


DAMAGED = (ValueError, OSError, EOFError, RuntimeError, BadZipFile, zlib.error)
"""What reading a zip or npz file raises that is broken, encrypted or packed in a way that Python does not know."""


@contextmanager
def downloading(what: str) -> Iterator[None]:
    """Raises MetanasError where the files of a data set cannot be fetched."""
    try:
        yield
    except (OSError, RuntimeError) as error:
        raise MetanasError(
            f"{what} cannot be downloaded ({error}): look at the connection and call again, or put the files there."
        ) from error


def data_folder(named: Path | None) -> Path | None:
    """The folder of named data sets: the one that is named, else that of the variable METANAS_DATA."""
    if named is None and (variable := os.environ.get("METANAS_DATA")):
        return Path(variable)
    return named


@dataclass(frozen=True)
class Where:
    """Where the files of a pool may lie: beside its YAML file, and in the data folder."""

    base: Path | None = None
    data: Path | None = None
    download: bool = False

    @property
    def folders(self) -> list[Path]:
        """The folders to look in, in this order."""
        return [folder for folder in (self.base or Path(), self.data) if folder is not None]

    def look(self, path: str | Path) -> Path | None:
        """The file or folder of that name, or None."""
        candidates = [folder / Path(path).expanduser() for folder in self.folders]
        return next((place.resolve() for place in candidates if place.exists()), None)

    def find(self, path: str | Path) -> Path:
        """The file or folder of that name; MetanasError says where it was looked for."""
        if (found := self.look(path)) is None:
            raise MetanasError(f"'{path}' is not in {self.searched}: put it there, or name its folder with --data.")
        return found

    @property
    def searched(self) -> str:
        """The folders, for a message."""
        return " or ".join(f"'{folder.resolve()}'" for folder in self.folders)

    def download_folder(self, what: str) -> Path:
        """The data folder, where downloading into it is allowed; MetanasError says how to allow it."""
        if self.data is None:
            raise MetanasError(f"{what} needs a data folder: name it with --data or METANAS_DATA.")
        if not self.download:
            raise MetanasError(
                f"{what} is not in {self.searched}: put it there, or let `metanas pool check` or `train` download it "
                "with --download."
            )
        self.data.mkdir(parents=True, exist_ok=True)
        return self.data


def load_source(kind: str, name: str, form: ImageForm, where: Where, options: Mapping[str, Any]) -> list[Task]:
    """The tasks of one source of a pool; MetanasError for an unknown kind, an unknown key or a wrong value."""
    if kind not in KINDS:
        raise MetanasError(f"Source '{name}': kind '{kind}' is not known, expected one of {', '.join(sorted(KINDS))}.")
    module, function = KINDS[kind].split(":")
    load: Callable[..., list[Task]] = getattr(import_module(module), function)
    parameters = inspect.signature(load).parameters
    keys = [key for key in parameters if key not in ("name", "form", "where")]
    if unknown := sorted(set(options) - set(keys)):
        raise MetanasError(
            f"Source '{name}': key '{unknown[0]}' is not known, kind '{kind}' takes {', '.join(keys) or 'no keys'}."
        )
    checked = validate_call(config=ConfigDict(arbitrary_types_allowed=True, coerce_numbers_to_str=True))(load)
    places = {"where": where} if "where" in parameters else {}
    try:
        tasks = checked(name=name, form=form, **places, **options)
    except ValidationError as error:
        raise first_mistake(error, f"Source '{name}'") from error
    except MetanasError as error:
        raise MetanasError(f"Source '{name}': {error}") from error
    return tasks
