"""Omniglot (Lake, Salakhutdinov and Tenenbaum, Science 2015): 1,623 characters of 50 alphabets by 20 drawers."""

import json
from pathlib import Path
from typing import Literal

import numpy as np

from metanas.errors import MetanasError
from tasks.cache import CachedImages
from tasks.sources import Where, downloading
from tasks.sources.folder import contents_of, files_in, image_files
from tasks.sources.npz import archived_images
from tasks.task import ImageForm, Task

LICENCE = "MIT (Lake et al. 2015)"
FIRST_EVALUATION = 965  # characters are numbered from 1 through both parts


def load(
    name: str,
    form: ImageForm,
    where: Where,
    part: Literal["background", "evaluation"] = "background",
    alphabets: list[str] | None = None,
) -> list[Task]:
    """One task whose families are the alphabets, ink bright on dark.

    Read from torchvision's `omniglot-py`, or from `omniglot_images_PART.npz` with `omniglot_alphabets.json` beside
    it. `alphabets` takes some of them, by name or by the beginning of a name that only one has.
    """
    folder = where.look(f"omniglot-py/images_{part}")
    archive = where.look(f"omniglot_images_{part}.npz")
    if folder is None and archive is None:
        from torchvision.datasets import Omniglot

        root = where.download_folder(f"Omniglot (omniglot-py/images_{part} or omniglot_images_{part}.npz)")
        with downloading("Omniglot"):
            Omniglot(str(root), background=part == "background", download=True)
        folder = where.find(f"omniglot-py/images_{part}")
    task = _from_folder(name, folder, form) if folder else _from_archive(name, where, part, form)
    if alphabets is None:
        return [task]
    chosen = _matching(sorted(set(task.families or ())), alphabets)
    families = zip(task.classes, task.families or (), strict=True)
    return [task.only([character for character, family in families if family in chosen])]


def _from_folder(name: str, folder: Path, form: ImageForm) -> Task:
    names = [file for file in files_in(folder) if file.endswith(".png")]  # alphabet/character/file
    characters, labels = np.unique([file.rsplit("/", 1)[0].replace("_", " ") for file in names], return_inverse=True)
    inputs = CachedImages(image_files(folder, contents_of(folder, names), names), form, invert=True)
    return _task(name, inputs, labels, characters.tolist(), folder)


def _from_archive(name: str, where: Where, part: str, form: ImageForm) -> Task:
    archive = where.find(f"omniglot_images_{part}.npz")
    listing = where.find("omniglot_alphabets.json")
    try:
        numbered = {
            number: f"{entry['alphabet']}/character{number - entry['first'] + 1:02d}"
            for entry in json.loads(listing.read_text(encoding="utf-8"))
            for number in range(entry["first"], entry["last"] + 1)
        }
    except (ValueError, TypeError, KeyError) as error:
        raise MetanasError(
            f"'{listing}' is no list of alphabets with the numbers of their first and last character ({error!r}): put "
            "it there again."
        ) from error
    originals = archived_images(archive, "images", leading=2)  # [characters, 20 drawers, 105, 105]
    first = 1 if part == "background" else FIRST_EVALUATION
    count = len(originals) // 20
    characters = [numbered[number] for number in range(first, first + count)]
    return _task(name, CachedImages(originals, form, invert=True), np.repeat(np.arange(count), 20), characters, archive)


def _task(name: str, inputs: CachedImages, labels: np.ndarray, characters: list[str], origin: Path) -> Task:
    families = tuple(character.split("/")[0] for character in characters)
    classes = tuple(characters)
    return Task(name, "image", inputs, labels, classes, families=families, licence=LICENCE, origin=str(origin))


def _matching(known: list[str], asked: list[str]) -> set[str]:
    chosen = set()
    for name in asked:
        wanted = name.replace("_", " ").casefold()
        matches = [alphabet for alphabet in known if alphabet.casefold() == wanted]
        matches = matches or [alphabet for alphabet in known if alphabet.casefold().startswith(wanted)]
        if len(matches) != 1:
            problem = "is the beginning of " + " and ".join(matches) if matches else "is not known"
            raise MetanasError(f"Alphabet '{name}' {problem}, expected one of {', '.join(known)}.")
        chosen.add(matches[0])
    return chosen
