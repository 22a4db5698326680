"""The genotypes of a space given by counts, and the example of the documentation."""

import re
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import chisquare

from metanas.errors import MetanasError
from metanas.spaces.genes import Genes, enumerated

SPACE = Genes("mixed", (2, 1, 3))


def test_draws_are_uniform_and_variations_stay_in_the_space() -> None:
    rng, every = np.random.default_rng(0), [enumerated(SPACE, i) for i in range(6)]
    drawn = [SPACE.sample(rng) for _ in range(600)]
    assert chisquare([drawn.count(a) for a in every]).pvalue > 1e-3
    for a, b in zip(drawn[:100], drawn[100:], strict=False):
        child, mutant = SPACE.crossover(a, b, rng), SPACE.mutate(a, rng)
        SPACE.check(mutant)
        assert all(gene in pair for gene, *pair in zip(child, a, b, strict=True))
        assert sum(x != y for x, y in zip(a, mutant, strict=True)) == 1


def test_the_encoding_is_one_hot() -> None:
    np.testing.assert_array_equal(SPACE.encode((1, 0, 2)), [0, 1, 1, 0, 0, 1])


@pytest.mark.parametrize("genes", [(0, 0), (2, 0, 0), (0, 0, -1), (0, 0, 1.0)])
def test_what_is_no_architecture_is_refused(genes: tuple[int, ...]) -> None:
    with pytest.raises(MetanasError, match="space 'mixed'"):
        SPACE.check(genes)


def test_a_space_of_one_architecture_is_refused() -> None:
    with pytest.raises(MetanasError, match="needs a gene with two values"):
        Genes("nothing", (1, 1))


def test_the_example_of_the_documentation_finds_the_best(capsys: pytest.CaptureFixture[str]) -> None:
    text = (Path(__file__).parents[2] / "docs" / "spaces.md").read_text()
    (example,) = (e for e in re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL) if "class Mlp" in e)
    exec(compile(example, "docs/spaces.md", "exec"), {})
    assert capsys.readouterr().out.startswith("3 x 32 ")
