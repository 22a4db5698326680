"""Elastic stages: the default space, made for small budgets.

Four stages, each halving the resolution, with elastic kernel, width, depth, pooling, normalisation and
attention. Weights are shared densely (once-for-all, Cai et al. 2020, section 3.3): a 3x3 kernel is the centre of
the 5x5 one, a narrow stage is the first channels of the wide one, and depth and attention are residuals that
start as the identity, so a path that was never trained begins where the trained one stands.

Pooling comes before normalisation: with max pooling the result is that of the usual order but for the
statistics, at a quarter of the memory traffic.
"""

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
DEPTHS = (0, 1, 2)
POOLINGS = ("max", "average")
ATTENTIONS = ("none", "squeeze")
READOUTS = ("grid", "average")  # the last map flattened, or averaged over its positions
GENES = ("kernel", "width", "depth", "pooling", "normalisation", "attention")
SQUEEZED = 8  # hidden units of squeeze-and-excitation


class Block(nn.Module):
    """Convolution and normalisation, with the stage's pooling between them when it is the stage's first."""

    def __init__(self, inputs: int, width: int, kernel: int, norm: str, pooling: str | None) -> None:
        super().__init__()
        self.conv = convolution(inputs, width, (kernel, kernel))
        self.norm = NORMS[norm](width)
        self.pooling = pooling

    def extra_repr(self) -> str:
        return f"pooling={self.pooling}"

    def forward(self, x: Tensor, reference: int, relu: bool) -> Tensor:
        x = self.conv(x)
        if self.pooling == "average":
            x = nn.functional.avg_pool2d(x, 2, ceil_mode=True)
        normalised: Tensor = self.norm(x, reference, pool="ceil" if self.pooling == "max" else None, relu=relu)
        return normalised


class Stage(nn.Module):
    """One convolution that halves the resolution, then `depth` residual blocks, then attention."""

    def __init__(self, inputs: int, kernel: int, width: int, depth: int, pooling: str, norm: str, gate: str) -> None:
        super().__init__()
        self.first = Block(inputs, width, kernel, norm, pooling)
        self.blocks = nn.ModuleList(Block(width, width, kernel, norm, None) for _ in range(depth))
        self.attention = Attention(width, SQUEEZED) if gate == "squeeze" else None

    def forward(self, x: Tensor, reference: int, drop: float, generator: torch.Generator | None) -> Tensor:
        x = self.first(x, reference, relu=True)  # (N, width, H / 2, W / 2)
        for block in self.blocks:
            x = torch.relu(x + drop_path(block(x, reference, relu=False), drop, generator))
        return x if self.attention is None else self.attention(x)


class StagesNetwork(Features):
    """The plain network of one architecture. `drop_path` is the probability of dropping a residual block."""

    def __init__(self, stages: list[Stage], readout: str) -> None:
        super().__init__()
        self.stages = nn.ModuleList(stages)
        self.readout = readout

    def forward(self, inputs: Tensor, reference: int) -> Tensor:
        x = inputs
        for stage in self.stages:
            x = stage(x, reference, self.drop_path, self.generator)
        return x.flatten(1) if self.readout == "grid" else x.mean((2, 3))  # (N, D)

    def blocks(self) -> list[nn.Module]:
        return list(self.stages)


class Stages(Elastic):
    """The space of elastic stages for images (channels, size, size).

    `widths` lists the choices of every stage, narrow first, `depths` those of the residual blocks after a stage's first
    convolution, few first, and `norms` those of normalisation, that of the default network first: statistics of the
    support set where a new task looks unlike the pool, each sample's own where shots are few. Six genes a stage, in
    the order of `GENES`, then the readout.
    """

    def __init__(
        self,
        channels: int = 1,
        size: int = 28,
        widths: tuple[tuple[int, ...], ...] = ((32, 48, 64), (48, 64, 96), (48, 64, 96), (64, 96, 128)),
        norms: tuple[str, ...] = tuple(NORMS),
        depths: tuple[int, ...] = DEPTHS,
    ) -> None:
        if not norms or set(norms) - set(NORMS) or len(set(norms)) < len(norms):
            raise MetanasError(f"space.stages: norms {list(norms)} must be some of {', '.join(NORMS)}, each once.")
        check_choices("space.stages: depths", depths, least=0)
        if not widths:
            raise MetanasError("space.stages: widths [] must list the choices of one stage or more.")
        for stage, choices in enumerate(widths, 1):
            check_choices(f"space.stages: widths of stage {stage}", choices, least=1)
        if size < 2 ** len(widths):
            raise MetanasError(
                f"space.stages: {len(widths)} stages halve an image {len(widths)} times, so image.size must be at "
                f"least {2 ** len(widths)}, but it is {size}; give larger images or fewer widths."
            )
        self.channels = channels
        self.widths, self.norms, self.depths = widths, norms, depths
        self.one_position = size == 2 ** len(widths)  # a pooling rounds up
        per_stage = [(KERNELS, w, depths, POOLINGS, norms, ATTENTIONS) for w in widths]
        super().__init__("stages", [*(c for stage in per_stage for c in stage), READOUTS])

    @property
    def default(self) -> Architecture:
        """As Conv-4, narrower at first and wider at last, with residual blocks where maps are small and cheap."""
        last = len(self.widths) - 1
        stages = [
            (0, min(1 + (i >= last - 1), len(widths) - 1), min(int(i > 0), len(self.depths) - 1), 0, 0, 0)
            for i, widths in enumerate(self.widths)
        ]
        return (*(gene for stage in stages for gene in stage), 0)

    def scaled(self, depth: float, width: float, size: int) -> "Stages":
        """A stage's first convolution counts as a layer. The readout 'grid' grows with the last map."""
        widths = tuple(tuple(scaled_width(w, width) for w in choices) for choices in self.widths)
        depths = tuple(scaled_depth(1 + d, depth) - 1 for d in self.depths)
        return Stages(self.channels, size, widths, self.norms, depths)

    def gene_name(self, gene: int) -> str:
        stage, kind = divmod(gene, len(GENES))
        return f"stage {stage + 1} {GENES[kind]}" if stage < len(self.widths) else "readout"

    def canonical(self, architecture: Architecture) -> Architecture:
        """On a last map of one position both readouts are the same."""
        return (*architecture[:-1], 0) if self.one_position else architecture

    def describe(self, architecture: Architecture) -> str:
        stages, readout = self._decode(architecture)
        return " | ".join(_stage_text(*stage) for stage in stages) + f" | {readout}"

    def draw(self, architecture: Architecture) -> str:
        stages, readout = self._decode(architecture)
        return draw_chain([["input"], *(_stage_lines(*stage) for stage in stages), [readout, "readout"]])

    def build(self, architecture: Architecture) -> Features:
        self.check(architecture)
        stages, readout = self._decode(architecture)
        modules, inputs = [], self.channels
        for stage in stages:
            modules.append(Stage(inputs, *stage))
            inputs = stage[1]
        return StagesNetwork(modules, readout)

    def largest(self) -> list[Architecture]:
        return [tuple(len(choices) - 1 for choices in self.choices)]

    def starts_at_one(self, name: str) -> bool:
        return name.endswith("norm.weight") and ".blocks." not in name

    def _decode(self, architecture: Architecture) -> tuple[list[tuple[int, int, int, str, str, str]], str]:
        values = [choices[gene] for gene, choices in zip(architecture, self.choices, strict=True)]
        genes = len(GENES)
        stages = [tuple(values[i * genes : (i + 1) * genes]) for i in range(len(self.widths))]
        return stages, str(values[-1])  # type: ignore[return-value]


def _stage_text(kernel: int, width: int, depth: int, pooling: str, norm: str, gate: str) -> str:
    return (
        f"{kernel}x{kernel} {width}"
        + (f" +{depth}" if depth else "")
        + f" {pooling}/{norm}"
        + (" attention" if gate != "none" else "")
    )


def _stage_lines(kernel: int, width: int, depth: int, pooling: str, norm: str, gate: str) -> list[str]:
    lines = [f"{kernel}x{kernel} conv, {width}", f"{pooling} pool, {norm} norm"]
    if depth:
        lines.append(f"+ {depth} residual")
    if gate != "none":
        lines.append("+ attention")
    return lines
