"""Glyphs, the embedded pool: the letters of six scripts and more, rendered from the fonts that matplotlib carries.

No digit is among them, so that adapting to digits is adapting to something new.
"""

import unicodedata
from collections import defaultdict
from collections.abc import Mapping
from functools import partial
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.ft2font import FT2Font
from PIL import Image, ImageFont

from metanas.errors import MetanasError
from tasks.sources.generated import Generated, records, stored
from tasks.task import ImageForm, Task

LICENCE = "rendered from DejaVu (Bitstream Vera and Arev licences) and STIX (SIL OFL 1.1) fonts"
FORMAT = 2  # part of the cache's key: raise it when the rendering changes

FACES = (
    *(f"DejaVuSans{style}" for style in ("", "-Bold", "-Oblique", "-BoldOblique")),
    *(f"DejaVuSerif{style}" for style in ("", "-Bold", "-Italic", "-BoldItalic")),
    *(f"DejaVuSansMono{style}" for style in ("", "-Bold", "-Oblique", "-BoldOblique")),
    *(f"STIXGeneral{style}" for style in ("", "Bol", "Italic", "BolIta")),
)
MAIN_SCRIPTS = ("LATIN", "GREEK", "CYRILLIC", "GEORGIAN", "ARMENIAN", "LAO")  # eight faces and more
SCRIPTS = (*MAIN_SCRIPTS, "ARABIC", "CANADIAN", "HEBREW", "LISU", "COPTIC")
"""First words of the Unicode names that are taken."""

EM = 96  # pixels an em when rendering, before shrinking to the form
LOOK_ALIKE, CASES_LOOK_ALIKE, THE_SAME = 0.94, 0.78, 0.99
"""Two letters count as one above this mean cosine of their renderings in the faces that carry both; the two cases of
one letter above the second; any two above the third in a single face.

Filled to the frame, A of three scripts, or o and O, are the same picture; so are letters with two small marks. As two
classes of one episode they could not be told apart.
"""


def load(name: str, form: ImageForm, faces: int = 8) -> list[Task]:
    """One task, ink bright on dark: a class is a letter that at least `faces` faces carry, its family the script.

    Of letters that look alike only the first by code point is kept: plain Latin before all others, capitals first.
    """
    key = repr(("glyphs", FORMAT, matplotlib.__version__, form.size, faces))
    make = partial(render, form.size, faces)
    marks = stored(key, make)["mark"]
    if not len(marks):
        raise MetanasError(f"No letter is carried by {faces} faces, there are {len(FACES)}: lower `faces`.")
    letters, labels = np.unique(marks, return_inverse=True)
    classes = tuple(unicodedata.name(chr(letter)) for letter in letters)
    return [
        Task(
            name,
            "image",
            Generated(key, len(marks), form, make),
            labels.astype(np.int64),
            classes,
            families=tuple(script(label) for label in classes),
            licence=LICENCE,
            synthetic=True,
            origin="fonts of matplotlib",
        )
    ]


def script(name: str) -> str:
    """The script of a letter from its Unicode name, such as `Latin`."""
    return name.split()[0].capitalize()


def render(size: int, faces: int) -> np.ndarray:
    """Records of all distinct letters in at least `faces` faces, with the code point as mark, in ascending order."""
    drawn: dict[int, dict[int, np.ndarray]] = defaultdict(dict)
    for face, letters in enumerate(_letters(faces)):
        font = ImageFont.truetype(str(_file(FACES[face])), EM, layout_engine=ImageFont.Layout.BASIC)
        for letter in letters:
            pixels = framed(font, chr(letter), size)
            # Some faces hold the same drawing, such as a slanted Lao that is not slanted.
            if pixels is not None and not any(np.array_equal(pixels, other) for other in drawn[letter].values()):
                drawn[letter][face] = pixels
    drawn = {letter: drawn[letter] for letter in sorted(drawn) if len(drawn[letter]) >= faces}
    flat = [(letter, pixels) for letter in _distinct(drawn) for pixels in drawn[letter].values()]
    table = records(len(flat), size)
    for row, (letter, pixels) in enumerate(flat):
        table[row] = letter, pixels
    return table


def _file(face: str) -> Path:
    return Path(matplotlib.get_data_path()) / "fonts" / "ttf" / f"{face}.ttf"


def _letters(faces: int) -> list[list[int]]:
    """For each face, the code points that it and enough others carry."""
    carried = [{code for code in FT2Font(str(_file(face))).get_charmap() if _is_letter(chr(code))} for face in FACES]
    count: dict[int, int] = defaultdict(int)
    for codes in carried:
        for code in codes:
            count[code] += 1
    return [sorted(code for code in codes if count[code] >= faces) for codes in carried]


def _is_letter(character: str) -> bool:
    return unicodedata.category(character)[0] == "L" and unicodedata.name(character, "?").split()[0] in SCRIPTS


def framed(font: ImageFont.FreeTypeFont, character: str, size: int) -> np.ndarray | None:
    """The character (size, size) uint8 at a fourteenth's distance from the frame, aspect kept; None when blank."""
    mask = font.getmask(character, mode="L")
    width, height = mask.size
    if not width or not height or mask.getbbox() is None:
        return None
    ink = Image.frombytes("L", mask.size, bytes(mask)).crop(mask.getbbox())
    room = size - 2 * max(1, round(size / 14))
    scale = room / max(ink.size)
    ink = ink.resize((max(1, round(ink.width * scale)), max(1, round(ink.height * scale))), Image.Resampling.BOX)
    frame = Image.new("L", (size, size))
    frame.paste(ink, ((size - ink.width) // 2, (size - ink.height) // 2))
    return np.asarray(frame)


def _distinct(drawn: Mapping[int, Mapping[int, np.ndarray]]) -> list[int]:
    """The letters, without those that look like an earlier one."""
    letters = list(drawn)
    alike = np.zeros((len(letters), len(letters)), np.float32)
    common, closest = np.zeros_like(alike), np.zeros_like(alike)
    for face in range(len(FACES)):
        rows = np.array([row for row, letter in enumerate(letters) if face in drawn[letter]], dtype=np.int64)
        if not len(rows):
            continue
        flat = np.stack([drawn[letters[row]][face].ravel() for row in rows]).astype(np.float32)
        flat /= np.linalg.norm(flat, axis=1, keepdims=True)
        cosine, pairs = flat @ flat.T, np.ix_(rows, rows)
        alike[pairs] += cosine
        common[pairs] += 1
        closest[pairs] = np.maximum(closest[pairs], cosine)
    alike /= np.maximum(common, 1)
    lower = np.array([chr(letter).lower() for letter in letters])
    cases = (alike > CASES_LOOK_ALIKE) & (lower[:, None] == lower)
    same = (alike > LOOK_ALIKE) | cases | (closest > THE_SAME)
    # A letter like a dropped one goes too: Cyrillic o is like Latin o, which is like O.
    return [letter for row, letter in enumerate(letters) if not same[row, :row].any()]
