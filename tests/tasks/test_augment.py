"""Augmentations: same shape and range, other for every image, the same for the same generator."""

import numpy as np
import pytest
import torch
from torch import Generator, Tensor
from torch.nn import functional as F

from metanas.errors import MetanasError
from tasks.augment import AUGMENTATIONS, _local_maximum, augmentation


@pytest.fixture(params=list(AUGMENTATIONS))
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def generator(seed: int = 0) -> Generator:
    return Generator().manual_seed(seed)


def cross(n: int, size: int = 28, channels: int = 1) -> Tensor:
    """The same off-centre cross n times."""
    image = torch.zeros(n, channels, size, size)
    image[..., size // 3, 4:-8] = 1
    image[..., 4:-4, size // 2] = 1
    return image


@pytest.mark.parametrize("shape", [(3, 1, 28, 28), (5, 3, 48, 48), (2, 1, 9, 13), (1, 1, 28, 28)])
def test_shape_and_range_are_kept(name: str, shape: tuple[int, ...]) -> None:
    for images in (torch.rand(shape, generator=generator(1)), torch.zeros(shape), torch.ones(shape)):
        changed = augmentation(name)(images, generator())
        assert changed.shape == images.shape
        assert changed.dtype == torch.float32
        assert float(changed.min()) >= 0
        assert float(changed.max()) <= 1


def test_the_generator_alone_decides(name: str) -> None:
    images, change = torch.rand(4, 1, 28, 28, generator=generator(1)), augmentation(name)
    before = images.clone()
    assert torch.equal(change(images, generator(3)), change(images, generator(3)))
    assert not torch.equal(change(images, generator(3)), change(images, generator(4)))
    assert torch.equal(images, before)


def test_every_image_gets_a_change_of_its_own(name: str) -> None:
    changed = augmentation(name)(cross(6), generator())
    differs = (changed[:, None] - changed[None]).abs().amax((2, 3, 4)) > 1e-3
    assert torch.equal(differs, ~torch.eye(6, dtype=torch.bool))


def test_letters_keep_their_ink_and_dark_surrounding() -> None:
    images = torch.zeros(200, 1, 28, 28)
    images[:, :, 8:20, 8:20] = 1
    moved = augmentation("affine")(images, generator())
    ratio = moved.sum((1, 2, 3)) / images.sum((1, 2, 3))
    assert 0.5 < float(ratio.min()) < 0.9 < 1.1 < float(ratio.max()) < 1.7
    assert float(moved[:, :, 0].max()) == 0


def test_handwriting_bends_straight_strokes() -> None:
    images = torch.zeros(100, 1, 28, 28)
    images[:, :, 7:21, 13:15] = 1
    bends = {name: _bend(augmentation(name)(images, generator())) for name in ("affine", "handwriting")}
    assert bends["handwriting"] > 2 * bends["affine"]


def _bend(images: torch.Tensor) -> float:
    """How far the middles of a stroke's rows lie from a straight line, in pixels."""
    found, columns = [], np.arange(images.shape[-1])
    for ink in images[:, 0].numpy():
        rows = np.flatnonzero(ink.sum(1) > 1)
        middle = (ink[rows] * columns).sum(1) / ink[rows].sum(1)
        found.append(np.abs(middle - np.polyval(np.polyfit(rows, middle, 1), rows)).mean())
    return float(np.mean(found))


def test_coarse_letters_have_the_detail_of_eight_pixels() -> None:
    """Noise shows it: half of the images are enlarged from 8 x 8 pixels, a quarter from 10 or 14."""
    changed = augmentation("glyph")(torch.rand(400, 1, 32, 32, generator=generator(1)), generator())
    detail = (changed[..., 1:] - changed[..., :-1]).abs().mean((1, 2, 3))
    smooth = float((detail < 0.5 * detail.max()).float().mean())
    assert 0.4 < smooth < 0.9


def test_surfaces_come_in_all_eight_positions() -> None:
    images = torch.zeros(400, 1, 20, 20)
    images[:, :, 2:9, 4:6] = 1  # a stroke, nearer to one corner, taller than wide
    changed = augmentation("surface")(images, generator())
    rows, columns = torch.meshgrid(torch.arange(20.0), torch.arange(20.0), indexing="ij")
    ink = (changed[:, 0] - 0.4).clamp(min=0)
    mass = ink.sum((1, 2))
    top, left = (ink * rows).sum((1, 2)) / mass < 9.5, (ink * columns).sum((1, 2)) / mass < 9.5
    spread_down = ink.sum(2).gt(0.3).sum(1)
    upright = spread_down > ink.sum(1).gt(0.3).sum(1)
    positions = set(zip(top.tolist(), left.tolist(), upright.tolist(), strict=True))
    assert len(positions) == 8


def test_the_local_maximum_is_that_of_max_pooling() -> None:
    images = torch.randn(3, 2, 9, 7, generator=generator())
    assert torch.equal(_local_maximum(images), F.max_pool2d(images, 3, stride=1, padding=1))


def test_an_unknown_name_is_an_error() -> None:
    with pytest.raises(
        MetanasError, match="augment: 'fog' is not known, expected one of affine, handwriting, glyph, photo, surface"
    ):
        augmentation("fog")
