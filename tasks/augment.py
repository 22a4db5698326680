"""Augmentations of a whole episode at once, by name.

Each takes images (N, C, H, W), floats in [0, 1], and a generator; it returns as many of the same shape and range. All
images get their own draws, but one call of `grid_sample`.
"""

import math
from collections.abc import Callable
from functools import cache

import torch
from torch import Generator, Tensor
from torch.nn import functional as F

from metanas.errors import MetanasError

Augmentation = Callable[[Tensor, Generator], Tensor]


def augmentation(name: str) -> Augmentation:
    """The augmentation of that name; MetanasError lists the names there are."""
    if name not in AUGMENTATIONS:
        raise MetanasError(f"augment: '{name}' is not known, expected one of {', '.join(AUGMENTATIONS)}.")
    return AUGMENTATIONS[name]


def affine(images: Tensor, generator: Generator) -> Tensor:
    """What a hand varies: turns within 15 degrees, shear, scale and shift; the surrounding is dark."""
    theta = _affine(_uniform(images, 7, generator), turn=15, shear=0.2, scale=0.2, shift=0.1)
    return _warp(images, F.affine_grid(theta, list(images.shape), align_corners=False), "zeros")


def handwriting(images: Tensor, generator: Generator) -> Tensor:
    """Affine changes as of a hand, and smooth bends of its strokes."""
    theta = _affine(_uniform(images, 7, generator), turn=15, shear=0.25, scale=0.2, shift=0.08)
    grid = F.affine_grid(theta, list(images.shape), align_corners=False) + _elastic(images, 0.05, generator)
    return _warp(images, grid, "zeros")


def glyph(images: Tensor, generator: Generator) -> Tensor:
    """From printed letters to coarse handwriting: elastic bends, another stroke width, few pixels, less contrast."""
    theta = _affine(_uniform(images, 7, generator), turn=15, shear=0.3, scale=0.25, shift=0.06)
    grid = F.affine_grid(theta, list(images.shape), align_corners=False) + _elastic(images, 0.07, generator)
    return _contrast(_coarse(_stroke(_warp(images, grid, "zeros"), generator), generator), generator)


def photo(images: Tensor, generator: Generator) -> Tensor:
    """Mirrored half of the time, cropped to 70-100% of the side, other brightness, contrast and colour, noise."""
    draws = _uniform(images, 4, generator)
    zoom = 0.85 + 0.15 * draws[:, 0]
    theta = torch.zeros(len(images), 2, 3)
    theta[:, 0, 0] = zoom * draws[:, 1].sign()
    theta[:, 1, 1] = zoom
    theta[:, :, 2] = draws[:, 2:4] * (1 - zoom)[:, None]
    crops = _warp(images, F.affine_grid(theta, list(images.shape), align_corners=False), "reflection")
    return _light(crops, generator, brightness=0.15, contrast=0.3, noise=0.03)


def surface(images: Tensor, generator: Generator) -> Tensor:
    """A surface has no upright: quarter turns and mirrorings, 80-120% of its size, a little light and noise."""
    draws = _uniform(images, 5, generator)
    quarter = torch.floor((draws[:, 0] + 1) * 2).clamp(max=3) * (math.pi / 2)
    zoom, mirror = 1 + 0.2 * draws[:, 1], torch.where(draws[:, 2] < 0, -1.0, 1.0)
    cos, sin = quarter.cos() * zoom, quarter.sin() * zoom
    shift = 0.1 * draws[:, 3:5]
    theta = torch.stack([cos * mirror, -sin, shift[:, 0], sin * mirror, cos, shift[:, 1]], 1).view(-1, 2, 3)
    turned = _warp(images, F.affine_grid(theta, list(images.shape), align_corners=False), "reflection")
    return _light(turned, generator, brightness=0.08, contrast=0.15, noise=0.02)


AUGMENTATIONS: dict[str, Augmentation] = {
    "affine": affine,
    "handwriting": handwriting,
    "glyph": glyph,
    "photo": photo,
    "surface": surface,
}


def _uniform(images: Tensor, count: int, generator: Generator) -> Tensor:
    """`count` numbers in [-1, 1) for each image (N, count)."""
    return torch.rand(len(images), count, generator=generator) * 2 - 1


def _affine(draws: Tensor, turn: float, shear: float, scale: float, shift: float) -> Tensor:
    """Matrices (N, 2, 3) from seven numbers in [-1, 1] an image; `turn` in degrees, all else relative."""
    angle = draws[:, 0] * math.radians(turn)
    cos, sin = angle.cos(), angle.sin()
    common = 1 + scale * 0.5 * draws[:, 3]
    width, height = common + scale * 0.5 * draws[:, 4], common + scale * 0.5 * draws[:, 5]
    slant = shear * draws[:, 1]
    rows = [cos * width, (slant * cos - sin) * height, shift * draws[:, 2]]
    rows += [sin * width, (slant * sin + cos) * height, shift * draws[:, 6]]
    return torch.stack(rows, 1).view(-1, 2, 3)


def _warp(images: Tensor, grid: Tensor, outside: str) -> Tensor:
    warped = F.grid_sample(images, grid, mode="bilinear", padding_mode=outside, align_corners=False)
    return warped.clamp_(0, 1)  # rounding leaves the range by 1e-7


def _elastic(images: Tensor, strength: float, generator: Generator) -> Tensor:
    """Smooth displacements (N, H, W, 2) in half sides of the image, splined over 5 x 5 normal draws."""
    knots = torch.randn(len(images), 2, 5, 5, generator=generator) * strength
    height, width = images.shape[-2:]
    field = knots.view(-1, 25) @ _spline(height, width)
    return field.view(-1, 2, height, width).permute(0, 2, 3, 1)


@cache
def _spline(height: int, width: int) -> Tensor:
    """The matrix (25, height * width) from 5 x 5 knots to pixels; `F.interpolate` is several times slower."""
    unit = torch.eye(25).view(25, 1, 5, 5)
    return F.interpolate(unit, (height, width), mode="bicubic", align_corners=True).view(25, -1)


def _stroke(images: Tensor, generator: Generator) -> Tensor:
    """Strokes up to a pixel thicker, or half a pixel thinner, on each side: blends with the local extremes."""
    weight = 0.25 + 0.75 * _uniform(images, 1, generator).view(-1, 1, 1, 1)
    thick, thin = _local_maximum(images), -_local_maximum(-images)
    return images + weight.clamp(min=0) * (thick - images) + (-weight).clamp(min=0) * (thin - images)


def _local_maximum(images: Tensor) -> Tensor:
    """The largest of 3 x 3 neighbours; `F.max_pool2d` with its indices is several times slower."""
    padded = F.pad(images, (1, 1, 1, 1), mode="replicate")
    rows = torch.maximum(torch.maximum(padded[:, :, :-2], padded[:, :, 1:-1]), padded[:, :, 2:])
    return torch.maximum(torch.maximum(rows[..., :-2], rows[..., 1:-1]), rows[..., 2:])


def _coarse(images: Tensor, generator: Generator) -> Tensor:
    """Half of the images at 8 pixels a side and enlarged again, an eighth each at 10 and 14; the rest keep theirs."""
    draw = torch.rand(len(images), generator=generator)
    coarse = images.clone()
    for low, high, pixels in ((0.0, 0.5, 8), (0.5, 0.625, 10), (0.625, 0.75, 14)):
        chosen = (draw >= low) & (draw < high)
        if chosen.any() and pixels < images.shape[-1]:
            small = F.adaptive_avg_pool2d(images[chosen], pixels)
            coarse[chosen] = F.interpolate(small, images.shape[-2:], mode="bilinear", align_corners=False)
    return coarse


def _contrast(images: Tensor, generator: Generator) -> Tensor:
    """Ink from 70% to 170% as bright, cut off at 1."""
    gain = 1.2 + 0.5 * _uniform(images, 1, generator).view(-1, 1, 1, 1)
    return (images * gain).clamp(0, 1)


def _light(images: Tensor, generator: Generator, brightness: float, contrast: float, noise: float) -> Tensor:
    """Another brightness and contrast about each image's mean, a third as much for each channel, and white noise."""
    n, channels = images.shape[:2]
    gain = 1 + contrast * _uniform(images, 1, generator)
    lift = brightness * _uniform(images, 1, generator)
    if channels > 1:
        gain = gain + contrast / 3 * _uniform(images, channels, generator)
        lift = lift + brightness / 3 * _uniform(images, channels, generator)
    mean = images.mean((1, 2, 3), keepdim=True)
    lit = (images - mean) * gain.view(n, -1, 1, 1) + mean + lift.view(n, -1, 1, 1)
    level = noise * torch.rand(n, 1, 1, 1, generator=generator)
    return (lit + level * torch.randn(images.shape, generator=generator)).clamp(0, 1)
