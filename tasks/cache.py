"""Holding the samples of a task: float arrays in memory, images in a lazily filled memory map.

An image is decoded and resized once, then lies as one row of a file that all processes map, so that 100,000 images
neither have to fit in memory nor are decoded again in each process or run.
"""

import hashlib
import os
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, BinaryIO, ClassVar, Protocol

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from metanas.caching import cache_folder
from metanas.errors import MetanasError
from tasks.task import ImageForm

FORMAT = 1  # part of the key of every cache folder: raise it when `to_form` changes


@dataclass(frozen=True, eq=False)
class InMemory:
    """Inputs small enough to travel whole: `samples` (N, ...) in their delivered form."""

    samples: np.ndarray

    def __len__(self) -> int:
        return len(self.samples)

    @property
    def content(self) -> str:
        return hashlib.sha256(np.ascontiguousarray(self.samples).tobytes()).hexdigest()

    def read(self, indices: Sequence[int] | np.ndarray) -> np.ndarray:
        return self.samples[np.asarray(indices, dtype=np.int64)]


class Originals(Protocol):
    """Images as they lie on disk, before they are brought into the form of a pool."""

    @property
    def place(self) -> Path:
        """The file or folder that holds them."""

    @property
    def content(self) -> str:
        """Names what they are, wherever they lie, without decoding them; another when that changes."""

    @property
    def at_once(self) -> bool:
        """True where reading one image costs as much as reading all (a compressed array)."""

    @property
    def left_out(self) -> tuple[tuple[str, str], ...]:
        """Files that lie among the images and are no samples, each with the reason."""

    def __len__(self) -> int: ...

    def name(self, index: int) -> str:
        """What to call an image in a message: its file, or file and position."""

    def opened(self) -> AbstractContextManager[Callable[[int], Image.Image]]:
        """A function from index to decoded image; it raises MetanasError for an unreadable one."""


@dataclass(frozen=True)
class InOneFile:
    """What `Originals` have in common that lie one after the other in the file `place`."""

    left_out: ClassVar[tuple[tuple[str, str], ...]] = ()

    place: Path
    count: int
    content: str

    def __len__(self) -> int:
        return self.count

    def name(self, index: int) -> str:
        return f"image {index} of '{self.place}'"


def open_image(file: Path | BinaryIO, name: str) -> Image.Image:
    """The decoded image, turned upright as its EXIF tag says; MetanasError names a file that cannot be read."""
    try:
        with Image.open(file) as image:
            image.load()
            upright = ImageOps.exif_transpose(image)
    # Decoders raise whatever they stumble over: OSError, SyntaxError, ValueError, struct.error, IndexError...
    except Exception as error:
        reason = _reason(file, error)
        raise MetanasError(f"'{name}' cannot be read as an image ({reason}): replace or remove it.") from error
    if upright.mode == "F":
        raise MetanasError(f"'{name}' holds floating-point pixels, expected 8 or 16 bits: save it again as PNG.")
    return upright


def _reason(file: Path | BinaryIO, error: Exception) -> str:
    if isinstance(file, Path):
        if not file.is_file():
            return "there is no such file"
        empty = file.stat().st_size == 0
    else:
        empty = file.seek(0, os.SEEK_END) == 0
    if empty:
        return "it is empty"
    return "it holds no known image format" if isinstance(error, UnidentifiedImageError) else str(error)


def array_image(pixels: np.ndarray, name: str) -> Image.Image:
    """An image from an array (H, W), (H, W, C) or (C, H, W), C of 1, 3 or 4: bool, uint8, uint16 or float in [0, 1]."""
    if pixels.ndim == 3 and pixels.shape[-1] not in (1, 3, 4) and pixels.shape[0] in (1, 3, 4):
        pixels = np.moveaxis(pixels, 0, -1)
    if pixels.ndim == 3 and pixels.shape[-1] == 1:
        pixels = pixels[..., 0]
    if pixels.ndim not in (2, 3) or (pixels.ndim == 3 and pixels.shape[-1] not in (3, 4)):
        raise MetanasError(f"{name} has shape {pixels.shape}, expected (H, W), (H, W, 3) or (3, H, W): reshape it.")
    if pixels.dtype == np.bool_:
        pixels = pixels.astype(np.uint8) * 255
    elif pixels.dtype == np.uint16:
        pixels = pixels // 257
    elif pixels.dtype.kind == "f" and pixels.min() >= 0 and pixels.max() <= 1:
        pixels = np.rint(pixels * 255)
    elif pixels.dtype != np.uint8:
        raise MetanasError(
            f"{name} holds {pixels.dtype} from {pixels.min():g} to {pixels.max():g}, "
            "expected bool, uint8, uint16 or floats from 0 to 1: convert it."
        )
    return Image.fromarray(np.ascontiguousarray(pixels, dtype=np.uint8))


def to_form(image: Image.Image, form: ImageForm, invert: bool = False) -> np.ndarray:
    """Pixels as uint8 (C, size, size); a change of aspect is accepted, transparency becomes white.

    Shrinking averages over areas, enlarging is bilinear, grey is the luma of ITU-R 601 (.299, .587, .114).
    """
    if image.mode.startswith("I"):  # 16 bits, which Pillow's own conversion would clip at 255
        image = Image.fromarray((np.asarray(image).clip(0, 65535) // 257).astype(np.uint8))
    if image.has_transparency_data:
        colours = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), colours)
    image = image.convert("L" if form.channels == 1 else "RGB")
    shrinks = min(image.size) >= form.size
    image = image.resize((form.size, form.size), Image.Resampling.BOX if shrinks else Image.Resampling.BILINEAR)
    pixels = np.asarray(image, dtype=np.uint8)
    pixels = pixels[None] if pixels.ndim == 2 else np.ascontiguousarray(pixels.transpose(2, 0, 1))
    return on_ground(255 - pixels if invert else pixels, form)


def on_ground(pixels: np.ndarray, form: ImageForm) -> np.ndarray:
    """Images (..., C, H, W), those with a bright rim inverted where the form asks for a dark ground.

    The rim, as a fat letter may cover most of what it encloses.
    """
    if not form.dark_ground:
        return pixels
    sides = pixels[..., 0, :], pixels[..., -1, :], pixels[..., 1:-1, 0], pixels[..., 1:-1, -1]
    bright = np.median(np.concatenate(sides, axis=-1), axis=(-2, -1)) > 127
    return np.where(bright[..., None, None, None], 255 - pixels, pixels)


@dataclass(frozen=True, eq=False)
class CachedImages:
    """Images in the form of a pool, decoded when first asked for. `invert` turns ink on paper into bright on dark.

    Any number of processes may fill the same cache: each writes a row before that row's flag, and all of them write
    the same bytes. Open maps do not travel: a pickled copy opens the files of the machine that it arrives on.
    """

    originals: Originals
    form: ImageForm
    invert: bool = False

    def __len__(self) -> int:
        return len(self.originals)

    @property
    def content(self) -> str:
        return f"{self.originals.content} {self.invert}"

    def __reduce__(self) -> tuple[Any, ...]:
        return CachedImages, (self.originals, self.form, self.invert)

    def read(self, indices: Sequence[int] | np.ndarray) -> np.ndarray:
        """uint8 (n, C, size, size); MetanasError names a file that cannot be read."""
        wanted = np.asarray(indices, dtype=np.int64)
        rows, filled = self._maps
        if not filled[wanted].all():
            missing = np.arange(len(self)) if self.originals.at_once else np.unique(wanted)
            self._fill(missing[filled[missing] == 0])
        return rows[wanted]

    @property
    def _shape(self) -> tuple[int, int, int]:
        return self.form.channels, self.form.size, self.form.size

    @cached_property
    def _files(self) -> tuple[Path, Path]:
        """The files of rows and flags, made (all zero) where they are missing."""
        name = repr((FORMAT, str(self.originals.place), self.content, len(self), self.form))
        folder = cache_folder() / hashlib.sha256(name.encode()).hexdigest()[:24]
        files = folder / "rows", folder / "filled"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            for file, width in zip(files, (int(np.prod(self._shape)), 1), strict=True):
                with file.open("ab") as stream:
                    stream.truncate(len(self) * width)
        except OSError as error:
            raise MetanasError(f"The image cache '{folder}' cannot be made ({error}): set METANAS_CACHE.") from error
        return files

    @cached_property
    def _maps(self) -> tuple[np.ndarray, np.ndarray]:
        rows, filled = self._files
        return (
            np.asarray(np.memmap(rows, np.uint8, "r", shape=(len(self), *self._shape))),
            np.asarray(np.memmap(filled, np.uint8, "r", shape=(len(self),))),
        )

    def _fill(self, missing: np.ndarray) -> None:
        rows, filled = self._files
        with (
            self.originals.opened() as decode,
            rows.open("r+b", buffering=0) as row_stream,  # unbuffered: a row must be out before its flag
            filled.open("r+b", buffering=0) as flag_stream,
        ):
            for index in missing.tolist():
                data = to_form(decode(index), self.form, self.invert).tobytes()
                try:
                    row_stream.seek(index * len(data))
                    row_stream.write(data)
                    flag_stream.seek(index)
                    flag_stream.write(b"\1")
                except OSError as error:
                    raise MetanasError(
                        f"The image cache '{rows.parent}' cannot be written ({error}): free space or set METANAS_CACHE."
                    ) from error
