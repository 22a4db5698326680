"""What files hold, as digests: each file is read once, and again when its size or a time of change is another."""

import hashlib
import json
import os
from collections.abc import Collection
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from metanas.caching import cache_folder, replacing

READERS = 8
"""Files read at once: a disk over a network answers each only after a while."""
AT_ONCE = 10_000
"""Files after which what was read is kept: who interrupts an hour's reading goes on there."""

Known = dict[str, tuple[str, str]]
"""The stamps and digests of files by name."""


def digests(root: Path, names: Collection[str]) -> dict[str, str]:
    """Of the files `root/name` by name, or the path of one that cannot be read; a copy has the digest of its original.

    They are kept in the cache, so that all files are read at the first time alone. Raises MetanasError where it cannot
    be written.
    """
    kept = cache_folder() / f"digests-{hashlib.sha256(os.fsencode(root.resolve())).hexdigest()[:24]}.json"
    known = _known(kept)
    stamps = {name: _stamp(root / name) for name in names}
    unknown = [name for name, stamp in stamps.items() if known.get(name, ("", ""))[0] != stamp]
    unread: dict[str, str] = {}
    with ThreadPoolExecutor(READERS) as readers:
        for start in range(0, len(unknown), AT_ONCE):
            some = unknown[start : start + AT_ONCE]
            read = dict(zip(some, readers.map(_digest, [root / name for name in some]), strict=True))
            unread |= {name: str(root / name) for name, digest in read.items() if digest is None}
            known |= {name: (stamps[name], digest) for name, digest in read.items() if digest is not None}
            _keep(kept, {name: entry for name, entry in known.items() if name in stamps or (root / name).exists()})
    return {name: unread[name] if name in unread else known[name][1] for name in stamps}


def _known(kept: Path) -> Known:
    try:
        return {name: (stamp, digest) for name, (stamp, digest) in json.loads(kept.read_bytes()).items()}
    except (OSError, ValueError):  # made anew, and where it cannot be written that is told
        return {}


def _keep(kept: Path, known: Known) -> None:
    with replacing(kept) as own:
        own.write_text(json.dumps(known), encoding="ascii")


def _stamp(file: Path) -> str:
    try:
        status = file.stat()
    except OSError:  # a dangling link, which whoever decodes it or checks the pool tells
        return "missing"
    return f"{status.st_mtime_ns} {status.st_ctime_ns} {status.st_size}"


def _digest(file: Path) -> str | None:
    try:
        if not file.is_file():  # a pipe would have its reader wait
            return None
        with file.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError:  # as above
        return None
