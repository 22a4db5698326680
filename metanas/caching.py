"""Where everything lies that can be made again."""

import os
from pathlib import Path


def cache_folder() -> Path:
    """METANAS_CACHE, else `metanas` in the user's cache folder."""
    if chosen := os.environ.get("METANAS_CACHE"):
        return Path(chosen).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "metanas"
