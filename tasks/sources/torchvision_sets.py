"""torchvision's data sets, in torchvision's own layout below the data folder or as single npz and zip files.

`kind: folder` reads what torchvision calls ImageFolder; Omniglot has a module of its own.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from PIL import Image

from metanas.errors import MetanasError
from tasks.cache import CachedImages, InOneFile, array_image
from tasks.digests import digests
from tasks.sources import Where, downloading, folder, npz
from tasks.task import ImageForm, Task

CIFAR_LICENCE = "research use (Krizhevsky 2009)"
GTSRB_LICENCE = "research use (Stallkamp et al. 2012)"
EmnistPart = Literal["byclass", "bymerge", "balanced", "letters", "digits", "mnist"]

SUPERCLASSES = {
    "aquatic mammals": "beaver dolphin otter seal whale",
    "fish": "aquarium_fish flatfish ray shark trout",
    "flowers": "orchid poppy rose sunflower tulip",
    "food containers": "bottle bowl can cup plate",
    "fruit and vegetables": "apple mushroom orange pear sweet_pepper",
    "household electrical devices": "clock keyboard lamp telephone television",
    "household furniture": "bed chair couch table wardrobe",
    "insects": "bee beetle butterfly caterpillar cockroach",
    "large carnivores": "bear leopard lion tiger wolf",
    "large man-made outdoor things": "bridge castle house road skyscraper",
    "large natural outdoor scenes": "cloud forest mountain plain sea",
    "large omnivores and herbivores": "camel cattle chimpanzee elephant kangaroo",
    "medium-sized mammals": "fox porcupine possum raccoon skunk",
    "non-insect invertebrates": "crab lobster snail spider worm",
    "people": "baby boy girl man woman",
    "reptiles": "crocodile dinosaur lizard snake turtle",
    "small mammals": "hamster mouse rabbit shrew squirrel",
    "trees": "maple_tree oak_tree palm_tree pine_tree willow_tree",
    "vehicles 1": "bicycle bus motorcycle pickup_truck train",
    "vehicles 2": "lawn_mower rocket streetcar tank tractor",
}
SUPERCLASS = {member: family for family, members in SUPERCLASSES.items() for member in members.split()}
"""The superclass of each class of CIFAR-100 (Krizhevsky 2009, section 3.1)."""


@dataclass(frozen=True)
class DatasetImages:
    """The images of a map-style data set of (image, label) pairs, which `make` builds anew where it is needed."""

    at_once: ClassVar[bool] = True  # these sets read all of their file when they are built
    left_out: ClassVar[tuple[tuple[str, str], ...]] = ()

    make: Callable[[], Any]
    count: int
    title: str
    place: Path

    @property
    def content(self) -> str:
        """These sets do not change under their name; of CIFAR-100's files torchvision knows the checksums."""
        return f"{self.title} {self.count}"

    def __len__(self) -> int:
        return self.count

    def name(self, index: int) -> str:
        return f"image {index} of {self.title}"

    @contextmanager
    def opened(self) -> Iterator[Callable[[int], Image.Image]]:
        dataset = self.make()
        yield lambda index: _as_image(dataset[index][0], self.name(index))


def _as_image(item: Any, name: str) -> Image.Image:
    if isinstance(item, Image.Image):
        return item
    pixels = item.numpy() if isinstance(item, torch.Tensor) else np.asarray(item)
    if pixels.dtype.kind == "f" and pixels.min() >= 0 and 1 < pixels.max() <= 255:  # bytes kept as floats
        pixels = np.rint(pixels).astype(np.uint8)
    return array_image(pixels, name)


def find_or_download(where: Where, layout: str, what: str) -> tuple[Path, bool]:
    """The folder that holds `layout`, or is to hold it, and whether it has to be downloaded there."""
    found = where.look(layout)
    if found is not None:
        return found.parents[len(Path(layout).parts) - 1], False
    return where.download_folder(f"{what} ({layout})"), True


def _build(make: Callable[..., Any], download: bool, what: str) -> Any:
    try:
        return make(download=download)
    except (RuntimeError, OSError) as error:  # torchvision's word for missing or corrupt files, and no connection
        raise MetanasError(f"{what}: {error}; put it there again, or remove it and add --download.") from error


def cifar100(name: str, form: ImageForm, where: Where, part: Literal["train", "test"] = "train") -> list[Task]:
    """One task of 100 classes, families are the 20 superclasses; `cifar-100-python` or `cifar100_PART.npz`."""
    archive = f"cifar100_{part}.npz"
    if where.look("cifar-100-python") is None and where.look(archive):
        (task,) = npz.load(name, form, where, Path(archive), licence=CIFAR_LICENCE)
    else:
        from torchvision.datasets import CIFAR100

        root, download = find_or_download(where, "cifar-100-python", f"CIFAR-100 (or {archive})")
        make = partial(CIFAR100, str(root), train=part == "train")
        dataset = _build(make, download, "CIFAR-100")
        inputs = CachedImages(DatasetImages(make, len(dataset), f"CIFAR-100 {part}", root), form)
        labels = np.array(dataset.targets)
        task = Task(name, "image", inputs, labels, tuple(dataset.classes), licence=CIFAR_LICENCE, origin=str(root))
    if unknown := [label for label in task.classes if label not in SUPERCLASS]:
        raise MetanasError(f"'{task.origin}' has the class '{unknown[0]}', which CIFAR-100 does not know.")
    return [replace(task, families=tuple(SUPERCLASS[label] for label in task.classes))]


@dataclass(frozen=True)
class IdxImages(InOneFile):
    """The images of an idx file, mapped, so that they need not fit in memory; `on_side` are rows for columns."""

    at_once: ClassVar[bool] = False

    on_side: bool

    @contextmanager
    def opened(self) -> Iterator[Callable[[int], Image.Image]]:
        images = _mapped(self.place, axes=3)
        yield lambda index: array_image(images[index].T if self.on_side else images[index], self.name(index))


def _mapped(path: Path, axes: int) -> np.ndarray:
    """The bytes of an idx file (LeCun et al. 1998): a magic number and the length of each axis come before them."""
    try:
        magic, *shape = np.fromfile(path, ">u4", axes + 1).tolist() or [0]
        if magic != 0x800 + axes:
            raise ValueError(f"it begins with {magic:#x}")
        return np.memmap(path, np.uint8, "r", offset=4 * (axes + 1), shape=tuple(shape))
    except (OSError, ValueError) as error:
        raise MetanasError(f"'{path}' is no idx file of bytes on {axes} axes ({error}): put it there again.") from error


def _idx_task(
    name: str, form: ImageForm, images: Path, names: Sequence[str], licence: str, on_side: bool = False
) -> Task:
    """One task of `...-images-idx3-ubyte` with its labels beside it; a class without images is left out."""
    marks = _mapped(images.with_name(images.name.replace("images-idx3", "labels-idx1")), axes=1)
    used, labels = np.unique(marks, return_inverse=True)  # EMNIST's letters start at 1
    classes = tuple(str(names[label]) for label in used)
    content = digests(images.parent, [images.name])[images.name]
    inputs = CachedImages(IdxImages(images, len(_mapped(images, axes=3)), content, on_side), form)
    return Task(name, "image", inputs, labels, classes, licence=licence, origin=str(images))


def emnist(name: str, form: ImageForm, where: Where, part: EmnistPart = "balanced") -> list[Task]:
    """EMNIST's training images of one of its six parts (Cohen et al. 2017), turned upright; layout `EMNIST/raw`."""
    from torchvision.datasets import EMNIST

    layout = f"EMNIST/raw/emnist-{part}-train-images-idx3-ubyte"
    root, download = find_or_download(where, layout, "EMNIST")
    if download:
        with downloading("EMNIST"):
            EMNIST(str(root), split=part, train=True, download=True)
    names, licence = EMNIST.classes_split_dict[part], "public domain (NIST; Cohen et al. 2017)"
    return [_idx_task(name, form, root / layout, names, licence, on_side=True)]


def fashion_mnist(name: str, form: ImageForm, where: Where) -> list[Task]:
    """Fashion-MNIST's training images (Xiao et al. 2017), ten classes; layout `FashionMNIST/raw`."""
    from torchvision.datasets import FashionMNIST

    layout = "FashionMNIST/raw/train-images-idx3-ubyte"
    root, download = find_or_download(where, layout, "Fashion-MNIST")
    if download:
        with downloading("Fashion-MNIST"):
            FashionMNIST(str(root), train=True, download=True)
    return [_idx_task(name, form, root / layout, FashionMNIST.classes, "MIT (Zalando; Xiao et al. 2017)")]


def gtsrb(name: str, form: ImageForm, where: Where) -> list[Task]:
    """German traffic signs, 43 classes; groups are the tracks (one sign filmed from a passing car).

    Read from `gtsrb/GTSRB/Training` of torchvision (the training part, which alone tells the tracks) or `gtsrb.npz`.
    """
    layout = "gtsrb/GTSRB/Training"
    if where.look(layout) is None and where.look("gtsrb.npz"):
        return npz.load(name, form, where, Path("gtsrb.npz"), licence=GTSRB_LICENCE)
    root, download = find_or_download(where, layout, "GTSRB (or gtsrb.npz)")
    if download:
        from torchvision.datasets import GTSRB

        with downloading("GTSRB"):
            GTSRB(str(root), split="train", download=True)
    (task,) = folder.load(name, form, where, root / layout, groups=r"^(\d+)_\d+\.ppm$", licence=GTSRB_LICENCE)
    if task.groups is None:
        raise MetanasError(f"'{task.origin}' tells no tracks.")
    tracks = [f"{task.classes[label]}_{track}" for label, track in zip(task.labels, task.groups, strict=True)]
    return [replace(task, groups=np.array(tracks))]


def tiny_imagenet(name: str, form: ImageForm, where: Where) -> list[Task]:
    """Tiny ImageNet's validation images as a zip of class folders, `tiny_imagenet_val.zip`: 200 classes, 64x64."""
    return folder.load(name, form, where, Path("tiny_imagenet_val.zip"), licence="ImageNet terms, research use")
