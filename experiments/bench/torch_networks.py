"""NAS-Bench-201's networks in PyTorch, a module per architecture.

They compute the same functions as those of `networks`.
"""

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
import torch
from torch import nn

from jaxhypernas.spaces.nasbench201 import EDGE_OPS, EDGES


class TorchNetwork(nn.Module):
    """One architecture with its weights; takes images B x C x H x W.

    Args:
        theta: Its weights, NumPy arrays.
        choice_6: Indices into the space's EDGE_OPS.
    """

    def __init__(self, theta: Any, choice_6: Sequence[int]) -> None:
        super().__init__()
        stem = theta["stem"]
        layers: list[nn.Module] = [_convolution(stem), _norm(stem.shape[3])]
        for stage, cells in enumerate(theta["cells"]):
            if stage > 0:
                layers.append(_Reduction(theta["reduce"][stage - 1]))
            for n in range(jax.tree.leaves(cells)[0].shape[0]):
                w = jax.tree.map(lambda v, n=n: v[n], cells)
                layers.append(_Cell(w, choice_6))
        channels, classes = theta["head"].shape
        self.features = nn.Sequential(*layers, _norm(channels), nn.ReLU())
        self.head = nn.Linear(channels, classes)
        self.head.weight.data = torch.from_numpy(theta["head"].T.copy())
        self.head.bias.data = torch.from_numpy(theta["bias"].copy())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Returns the logits."""
        return self.head(self.features(x).mean((2, 3)))


class _Cell(nn.Module):
    def __init__(self, w: Any, choice_6: Sequence[int]) -> None:
        super().__init__()
        self.edges = nn.ModuleDict()
        for edge, choice in enumerate(choice_6):
            name = EDGE_OPS[choice]
            if name == "skip_connect":
                op = nn.Identity()
            elif name == "avg_pool_3x3":
                op = nn.AvgPool2d(3, 1, 1, count_include_pad=False)
            elif name == "none":
                continue
            else:
                op = _relu_convolution_norm(w[name]["conv0"][edge])
            self.edges[str(edge)] = op

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        states = [x]
        for to in (1, 2, 3):
            inputs = [
                self.edges[str(edge)](states[start])
                for edge, (end, start) in enumerate(EDGES)
                if end == to and str(edge) in self.edges
            ]
            states.append(sum(inputs) if inputs else torch.zeros_like(x))
        return states[3]


class _Reduction(nn.Module):
    def __init__(self, w: Any) -> None:
        super().__init__()
        self.main = nn.Sequential(
            _relu_convolution_norm(w["a"], 2), _relu_convolution_norm(w["b"])
        )
        self.skip = nn.Sequential(
            nn.AvgPool2d(2), _convolution(w["skip"][None, None])
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.main(x) + self.skip(x)


def _convolution(w_KxLxIxO: np.ndarray, stride: int = 1) -> nn.Module:
    kernel = torch.from_numpy(w_KxLxIxO.copy()).permute(3, 2, 0, 1)
    O, I, K, _ = kernel.shape
    convolution = nn.Conv2d(I, O, K, stride, K // 2, bias=False)
    convolution.weight.data = kernel.contiguous(
        memory_format=torch.channels_last
    )
    return convolution


def _norm(channels: int) -> nn.Module:
    return nn.BatchNorm2d(channels, affine=False, track_running_stats=False)


def _relu_convolution_norm(
    w_KxLxIxO: np.ndarray, stride: int = 1
) -> nn.Module:
    return nn.Sequential(
        nn.ReLU(),
        _convolution(w_KxLxIxO, stride),
        _norm(w_KxLxIxO.shape[3]),
    )
