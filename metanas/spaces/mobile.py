"""The mobile space: stages of inverted bottlenecks (MnasNet, Tan et al. 2019, section 4.1).

Each stage has its own kernel, expansion, squeeze-and-excitation, depth, width and skip, the same for all of its
layers: the factorised hierarchical space of the paper, whose layers are MBConv blocks (MobileNetV2, Sandler et al.
2018). A stem of a full convolution that halves the resolution comes first, and a 1x1 convolution to `features` channels
and the mean over the image last. The first layer of a stage changes width and resolution and has no skip.

Weights nest as in the elastic stages: kernels by their centre, widths and expansions by their first channels. The
normalisation that ends a layer is one with the skip, where it starts at zero and so the layer as the identity, and
another one without.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn

from metanas.api import Architecture
from metanas.errors import MetanasError
from metanas.spaces.drawing import draw_chain
from metanas.spaces.elastic import Elastic, check_choices
from metanas.spaces.norm import NORMS
from metanas.spaces.ops import Attention, convolution, drop_path
from metanas.spaces.scaling import scaled_depth, scaled_width
from metanas.spaces.space import Features

KERNELS = (3, 5)
SQUEEZES = ("none", "squeeze")
SKIPS = ("identity", "none")
GENES = ("kernel", "expansion", "squeeze", "depth", "width", "skip")
RATIO = 4  # input channels for each hidden unit of squeeze-and-excitation


@dataclass(frozen=True)
class StageForm:
    """What the genes of one stage say, in the order of `GENES`."""

    kernel: int
    expansion: int
    squeeze: str
    depth: int
    width: int
    skip: str


class ConvNorm(nn.Module):
    """Convolution, normalisation and ReLU: the stem and the last layer."""

    def __init__(self, inputs: int, width: int, kernel: int, stride: int, norm: str) -> None:
        super().__init__()
        self.conv = convolution(inputs, width, (kernel, kernel), stride)
        self.norm = NORMS[norm](width)

    def forward(self, x: Tensor, reference: int) -> Tensor:
        normalised: Tensor = self.norm(self.conv(x), reference, relu=True)
        return normalised


class MBConv(nn.Module):
    """An inverted bottleneck: expand by a 1x1 convolution, convolve each channel, attend, project without ReLU."""

    def __init__(self, inputs: int, stride: int, form: StageForm, residual: bool, norm: str) -> None:
        super().__init__()
        hidden = inputs * form.expansion
        self.expand = convolution(inputs, hidden, (1, 1))
        self.expand_norm = NORMS[norm](hidden)
        self.depthwise = convolution(hidden, hidden, (form.kernel, form.kernel), stride, groups=hidden)
        self.depthwise_norm = NORMS[norm](hidden)
        self.attention = Attention(hidden, max(1, inputs // RATIO)) if form.squeeze == "squeeze" else None
        self.project = convolution(hidden, form.width, (1, 1))
        self.residual = residual
        self.last = nn.ModuleDict({"residual" if residual else "plain": NORMS[norm](form.width)})

    def forward(self, x: Tensor, reference: int, drop: float, generator: torch.Generator | None) -> Tensor:
        y = self.expand_norm(self.expand(x), reference, relu=True)  # (N, hidden, H, W)
        y = self.depthwise_norm(self.depthwise(y), reference, relu=True)  # (N, hidden, H / stride, W / stride)
        if self.attention is not None:
            y = self.attention(y)
        (norm,) = self.last.values()
        y = norm(self.project(y), reference)  # (N, width, H / stride, W / stride)
        return x + drop_path(y, drop, generator) if self.residual else y


class MobileNetwork(Features):
    """The plain network of one architecture. `drop_path` is the probability of dropping a layer with a skip."""

    def __init__(self, stem: ConvNorm, stages: list[list[MBConv]], last: ConvNorm) -> None:
        super().__init__()
        self.stem = stem
        self.stages = nn.ModuleList(nn.ModuleList(stage) for stage in stages)
        self.last = last

    def forward(self, inputs: Tensor, reference: int) -> Tensor:
        x = self.stem(inputs, reference)
        for stage in self.stages:
            for layer in cast(nn.ModuleList, stage):
                x = layer(x, reference, self.drop_path, self.generator)
        pooled: Tensor = self.last(x, reference).mean((2, 3))  # (N, D)
        return pooled

    def blocks(self) -> list[nn.Module]:
        return [self.stem, *(layer for stage in self.stages for layer in cast(nn.ModuleList, stage)), self.last]


class Mobile(Elastic):
    """Stages of MBConv layers: six genes a stage, in the order of `GENES`.

    `widths` lists the choices of every stage, narrow first, and `strides` how each changes the resolution, which the
    stem has halved already; `expansions` and `depths` hold for all stages, few first. `norm` is "support" or "sample".
    """

    def __init__(
        self,
        channels: int = 1,
        widths: tuple[tuple[int, ...], ...] = ((12, 16, 20), (16, 24, 32), (32, 40, 48), (48, 64, 80)),
        strides: tuple[int, ...] = (1, 2, 2, 1),
        expansions: tuple[int, ...] = (3, 6),
        depths: tuple[int, ...] = (1, 2, 3),
        stem: int = 16,
        features: int = 128,
        norm: str = "support",
    ) -> None:
        if len(strides) != len(widths):
            raise MetanasError(
                f"space.mobile: {len(widths)} stages need as many strides, but strides is {list(strides)}."
            )
        if norm not in NORMS:
            raise MetanasError(f"space.mobile: norm '{norm}' must be one of {', '.join(NORMS)}.")
        named = [("expansions", expansions), ("depths", depths)]
        for key, choices in (*named, *((f"widths of stage {stage}", own) for stage, own in enumerate(widths, 1))):
            check_choices(f"space.mobile: {key}", choices, least=1)
        self.channels, self.norm = channels, norm
        self.widths, self.strides, self.expansions, self.depths = widths, strides, expansions, depths
        self.stem, self.features = stem, features
        of_stages = ((KERNELS, expansions, SQUEEZES, depths, w, SKIPS) for w in widths)
        super().__init__("mobile", [choices for of_stage in of_stages for choices in of_stage])

    @property
    def default(self) -> Architecture:
        """Two layers of the middle width a stage, 3x3, the smallest expansion, with skips: as MobileNetV2, smaller."""
        depth = min(1, len(self.depths) - 1)
        return tuple(gene for widths in self.widths for gene in (0, 0, 0, depth, len(widths) // 2, 0))

    def scaled(self, depth: float, width: float, size: int) -> "Mobile":
        """Stem and last layer are widened as well, as in EfficientNet. The images' size changes nothing here."""
        return Mobile(
            self.channels,
            tuple(tuple(scaled_width(w, width) for w in choices) for choices in self.widths),
            self.strides,
            self.expansions,
            tuple(scaled_depth(d, depth) for d in self.depths),
            scaled_width(self.stem, width),
            scaled_width(self.features, width),
            self.norm,
        )

    def gene_name(self, gene: int) -> str:
        stage, kind = divmod(gene, len(GENES))
        return f"stage {stage + 1} {GENES[kind]}"

    def canonical(self, architecture: Architecture) -> Architecture:
        """In a stage of one layer nothing can be skipped."""
        genes = list(architecture)
        for i, form in enumerate(self.forms(architecture)):
            if form.depth == 1:
                genes[i * len(GENES) + GENES.index("skip")] = 0
        return tuple(genes)

    def forms(self, architecture: Architecture) -> Iterator[StageForm]:
        """What the genes say, stage by stage."""
        values = [choices[gene] for gene, choices in zip(architecture, self.choices, strict=True)]
        for start in range(0, len(values), len(GENES)):
            yield StageForm(*values[start : start + len(GENES)])  # type: ignore[arg-type]

    def build(self, architecture: Architecture) -> MobileNetwork:
        self.check(architecture)
        stages, inputs = [], self.stem
        for form, stride in zip(self.forms(architecture), self.strides, strict=True):
            layers = [MBConv(inputs, stride, form, False, self.norm)]
            for _ in range(form.depth - 1):
                layers.append(MBConv(form.width, 1, form, form.skip == "identity", self.norm))
            stages.append(layers)
            inputs = form.width
        return MobileNetwork(
            ConvNorm(self.channels, self.stem, 3, 2, self.norm),
            stages,
            ConvNorm(inputs, self.features, 1, 1, self.norm),
        )

    def largest(self) -> list[Architecture]:
        """One with skips and one without, for their normalisations differ."""
        full = [len(choices) - 1 for choices in self.choices]
        return [
            tuple(skip if gene % len(GENES) == GENES.index("skip") else n for gene, n in enumerate(full))
            for skip in range(len(SKIPS))
        ]

    def starts_at_one(self, name: str) -> bool:
        return name.endswith(("norm.weight", "last.plain.weight"))

    def describe(self, architecture: Architecture) -> str:
        stages = [", ".join(_lines(form)) for form in self.forms(self.canonical(architecture))]
        return " | ".join([*stages, f"normalised by {self.norm}"])

    def draw(self, architecture: Architecture) -> str:
        ends = ["input"], ["3x3 conv, half the size", f"{self.stem} channels"]
        stages = [
            [*_lines(form), *(["half the size"] if stride > 1 else [])]
            for form, stride in zip(self.forms(self.canonical(architecture)), self.strides, strict=True)
        ]
        return draw_chain([*ends, *stages, ["1x1 conv, mean", f"{self.features} features"]])


def _lines(form: StageForm) -> list[str]:
    lines = [f"{form.depth} x MBConv{form.expansion} {form.kernel}x{form.kernel}", f"{form.width} channels"]
    if form.squeeze == "squeeze":
        lines.append("squeeze-excite")
    if form.depth > 1:
        lines.append("with skips" if form.skip == "identity" else "without skips")
    return lines
