"""What files hold, as digests: each file is read once, and again when its size or time of change is another."""

import hashlib
import json
import os
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from metanas.caching import cache_folder, replacing

READERS = 8
"""Files read at once: a disk over a network answers each only after a while."""


def digests(root: Path, names: Iterable[str]) -> dict[str, str]:
    """Of the files `root/name` by name, "" for one that cannot be read; a copy has the digest of its original.

    They are kept in the cache, so that all files are read at the first time alone.
    """
    kept = cache_folder() / f"digests-{hashlib.sha256(os.fsencode(root.resolve())).hexdigest()[:24]}.json"
    known = _known(kept)
    stamps = {name: _stamp(root / name) for name in names}
    unknown = [name for name, stamp in stamps.items() if known.get(name, ("", ""))[0] != stamp]
    with ThreadPoolExecutor(READERS) as readers:
        found = dict(zip(unknown, readers.map(_digest, [root / name for name in unknown]), strict=True))
    if read := {name: (stamps[name], digest) for name, digest in found.items() if digest}:
        known |= read
        with replacing(kept) as own:
            own.write_text(json.dumps(known), encoding="ascii")
    return {name: found[name] if name in found else known[name][1] for name in stamps}


def _known(kept: Path) -> dict[str, tuple[str, str]]:
    """The stamps and digests by name that were kept."""
    try:
        return {name: (stamp, digest) for name, (stamp, digest) in json.loads(kept.read_bytes()).items()}
    except (OSError, ValueError):  # made anew, and where it cannot be written that is told
        return {}


def _stamp(file: Path) -> str:
    try:
        status = file.stat()
    except OSError:  # a dangling link, which whoever decodes it or checks the pool tells
        return "missing"
    return f"{status.st_mtime_ns} {status.st_size}"


def _digest(file: Path) -> str:
    try:
        with file.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError:  # as above
        return ""
