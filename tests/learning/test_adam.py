"""Adam as its paper has it, and on a part of a weight."""

import numpy as np
import torch

from metanas.learning.adam import Moments, adam_step


def test_its_steps_are_those_of_the_paper() -> None:
    """Algorithm 1 of Kingma and Ba, as written, on the gradient of (w - t)^4."""
    weight = torch.tensor([1.0, -2.0, 3.0], dtype=torch.float64)
    moments = Moments.of(weight)
    w, m, v = np.array([1.0, -2.0, 3.0]), np.zeros(3), np.zeros(3)
    for t in range(1, 6):
        adam_step(weight, moments, 4 * (weight - t) ** 3, 0.1)
        g = 4 * (w - t) ** 3
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g**2
        w = w - 0.1 * (m / (1 - 0.9**t)) / (np.sqrt(v / (1 - 0.999**t)) + 1e-8)
    np.testing.assert_allclose(weight.numpy(), w, rtol=1e-12)


def test_entries_out_of_use_stay_with_their_moments() -> None:
    weight, whole = torch.ones(4, 4), torch.ones(2, 3)
    moments = Moments.of(weight)
    used = torch.tensor([[True, False, True], [True, True, False]])
    gradient = torch.arange(6.0).reshape(2, 3) + 1
    adam_step(weight, moments, gradient, 0.1, (slice(1, 3), slice(0, 3)), used)
    adam_step(whole, Moments.of(whole), gradient, 0.1)
    expected = torch.ones(4, 4)
    expected[1:3, 0:3] = torch.where(used, whole, torch.ones(2, 3))
    torch.testing.assert_close(weight, expected, rtol=0, atol=0)
    assert torch.equal(moments.first != 0, expected != 1)
