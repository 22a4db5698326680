"""Where everything lies that can be made again."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

from metanas.errors import MetanasError


def cache_folder() -> Path:
    """METANAS_CACHE, else `metanas` in the user's cache folder."""
    if chosen := os.environ.get("METANAS_CACHE"):
        return Path(chosen).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "metanas"


@contextmanager
def replacing(file: Path) -> Iterator[Path]:
    """A file of this process alone, which then goes to `file` whole: several processes may make the same at once.

    Raises MetanasError where the cache cannot be written.
    """
    own = file.with_suffix(f".{uuid4().hex}.tmp")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        try:
            yield own
            os.replace(own, file)
        except BaseException:
            own.unlink(missing_ok=True)
            raise
    except OSError as error:
        raise MetanasError(
            f"The cache '{file}' cannot be written ({error}): free space or set METANAS_CACHE."
        ) from error
