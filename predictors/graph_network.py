"""A small graph network over the edges of a cell: one transformation an operation, messages from node to node.

In the manner of Ning et al. 2020 (GATES) and of gated graph networks: information flows along the edges from the
input to the output, and is transformed by the operation of the edge; the state of the output tells the score.
"""

from collections.abc import Mapping
from typing import Literal, Self

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from metanas.errors import MetanasError
from metanas.seeding import torch_stream
from predictors.features import Layout, columns

WIDTH = 32
MEMBERS = 3
STEPS = 150
BATCH = 128
RATE = 1e-2
DECAY = 1e-3

Loss = Literal["squared", "pairwise"]


def pairwise_loss(scores: Tensor, targets: Tensor) -> Tensor:
    """The logistic loss of all pairs of different targets (n,) (RankNet, Burges et al. 2005); 0 without such pairs."""
    higher = targets[:, None] > targets[None]
    losses = F.softplus(scores[None] - scores[:, None])  # (n, n): small where the row is scored above the column
    return (losses * higher).sum() / higher.sum().clamp(min=1)


class _Network(nn.Module):
    """Adjacency (n, V, V, O) -> scores (n,)."""

    def __init__(self, nodes: int, operations: int) -> None:
        super().__init__()
        self.start = nn.Parameter(0.1 * torch.randn(nodes, WIDTH))
        self.messages = nn.Parameter(torch.randn(operations, WIDTH, WIDTH) / WIDTH**0.5)
        self.update = nn.Linear(WIDTH, WIDTH)
        self.score = nn.Sequential(nn.Linear(2 * WIDTH, WIDTH), nn.ReLU(), nn.Linear(WIDTH, 1))

    def forward(self, adjacency: Tensor) -> Tensor:
        states: list[Tensor] = []
        sent: list[Tensor] = []  # what each node hands on, by operation: (n, O, W)
        for node, start in enumerate(self.start):
            state = start.expand(len(adjacency), -1)  # (n, W)
            if sent:
                state = state + torch.einsum("nso,nsow->nw", adjacency[:, :node, node], torch.stack(sent, 1))
            state = state + F.relu(self.update(state))
            states.append(state)
            sent.append(torch.einsum("nw,owx->nox", state, self.messages))
        scores: Tensor = self.score(torch.cat([state, torch.stack(states, 1).mean(1)], 1)).squeeze(1)
        return scores


class GraphNetwork:
    """An ensemble of graph networks, trained by squared error or by the order of pairs.

    Reads the block "adjacency" of its features. With the ranking loss, scores are brought to the scale of the targets
    afterwards, by a straight line of least squares. Raises MetanasError for features without that block.
    """

    def __init__(self, seed: int, layout: Layout, loss: Loss = "squared") -> None:
        if "adjacency" not in dict(layout):
            raise MetanasError(
                "a graph network reads the block 'adjacency', which these features lack: this space gives no graphs; "
                "choose another model."
            )
        self.seed, self.loss = seed, loss
        self.adjacency = columns(layout, "adjacency")
        self._networks: list[_Network] = []

    def fit(self, features: np.ndarray, targets: np.ndarray) -> Self:
        """Learns from features (n, d) and targets (n,), and forgets what it learned before."""
        self._centre, self._scale = float(targets.mean()), float(targets.std()) or 1.0
        graphs, scaled = self._graphs(features), (targets - self._centre) / self._scale
        with torch.random.fork_rng(devices=[]):
            single = torch.from_numpy(scaled).float()
            self._networks = [self._train(graphs, single, member) for member in range(MEMBERS)]
        self._lines = np.array([self._line(network, graphs, scaled) for network in self._networks])
        return self

    def predict(self, features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Mean and spread over the ensemble, (n,) each."""
        graphs = self._graphs(features)
        with torch.no_grad():
            scores = torch.stack([network(graphs) for network in self._networks]).double().numpy()  # (members, n)
        found = scores * self._lines[:, :1] + self._lines[:, 1:]
        return self._centre + self._scale * found.mean(0), self._scale * found.std(0)

    def arrays(self) -> dict[str, np.ndarray]:
        """The weights of all networks, by name, and how their scores are brought to the targets' scale."""
        weights = {f"{i}.{name}": w.numpy() for i, n in enumerate(self._networks) for name, w in n.state_dict().items()}
        return weights | {"scale": np.array([self._centre, self._scale]), "lines": self._lines}

    def restore(self, arrays: Mapping[str, np.ndarray]) -> Self:
        """What `arrays` of another said, in place of a fit."""
        (self._centre, self._scale), self._lines = arrays["scale"].tolist(), arrays["lines"]
        self._networks = []
        for member in range(MEMBERS):
            weights = {
                name.removeprefix(f"{member}."): torch.tensor(array)
                for name, array in arrays.items()
                if name.startswith(f"{member}.")
            }
            network = _Network(len(weights["start"]), len(weights["messages"]))
            network.load_state_dict(weights)
            self._networks.append(network)
        return self

    def _graphs(self, features: np.ndarray) -> Tensor:
        """(n, V, V, O); the block's first column is V."""
        block = features[:, self.adjacency]
        nodes = int(block[0, 0])
        return torch.from_numpy(block[:, 1:].reshape(len(block), nodes, nodes, -1)).float()

    def _train(self, graphs: Tensor, targets: Tensor, member: int) -> _Network:
        generator = torch_stream(self.seed, "graph network", member)
        torch.manual_seed(generator.initial_seed())
        network = _Network(graphs.shape[1], graphs.shape[3])
        optimizer = torch.optim.AdamW(network.parameters(), RATE, weight_decay=DECAY)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, total_steps=STEPS)
        loss = pairwise_loss if self.loss == "pairwise" else F.mse_loss
        for _ in range(STEPS):
            rows = torch.randperm(len(targets), generator=generator)[:BATCH]
            optimizer.zero_grad()
            torch.autograd.backward(loss(network(graphs[rows]), targets[rows]))
            nn.utils.clip_grad_norm_(network.parameters(), 1.0)
            optimizer.step()
            schedule.step()
        return network

    def _line(self, network: _Network, graphs: Tensor, targets: np.ndarray) -> tuple[float, float]:
        """Slope and shift from a network's scores to targets: 1 and 0 where it learned the targets themselves."""
        if self.loss == "squared":
            return 1.0, 0.0
        with torch.no_grad():
            scores = network(graphs).double().numpy()
        spread = float(scores.var())
        slope = float(np.mean((scores - scores.mean()) * (targets - targets.mean()))) / spread if spread > 0 else 0.0
        return slope, float(targets.mean() - slope * scores.mean())
