"""NAS-Bench-201's networks in PyTorch, a module per architecture: the same functions as those of `networks`."""

import jax
import torch
from torch import nn

from jaxhypernas.spaces.nasbench201 import EDGE_OPS, EDGES


def _torch_conv(w, stride=1):
    kernel = torch.from_numpy(w.copy()).permute(3, 2, 0, 1)
    O, I, k, _ = kernel.shape
    conv = nn.Conv2d(I, O, k, stride, k // 2, bias=False)
    conv.weight.data = kernel.contiguous(memory_format=torch.channels_last)
    return conv


def _torch_norm(C):
    return nn.BatchNorm2d(C, affine=False, track_running_stats=False)


def _relu_conv_norm(w, stride=1):
    return nn.Sequential(
        nn.ReLU(), _torch_conv(w, stride), _torch_norm(w.shape[3])
    )


class _Cell(nn.Module):
    def __init__(self, w, choice_6):
        super().__init__()
        self.edges = nn.ModuleDict()
        for edge, choice in enumerate(choice_6):
            name = EDGE_OPS[choice]
            if name == "skip_connect":
                self.edges[str(edge)] = nn.Identity()
            elif name == "avg_pool_3x3":
                self.edges[str(edge)] = nn.AvgPool2d(
                    3, 1, 1, count_include_pad=False
                )
            elif name != "none":
                self.edges[str(edge)] = _relu_conv_norm(w[name]["conv0"][edge])

    def forward(self, x):
        states = [x]
        for to in (1, 2, 3):
            inputs = [
                self.edges[str(e)](states[start])
                for e, (end, start) in enumerate(EDGES)
                if end == to and str(e) in self.edges
            ]
            states.append(sum(inputs) if inputs else torch.zeros_like(x))
        return states[3]


class _Reduction(nn.Module):
    def __init__(self, w):
        super().__init__()
        self.main = nn.Sequential(
            _relu_conv_norm(w["a"], 2), _relu_conv_norm(w["b"])
        )
        self.skip = nn.Sequential(
            nn.AvgPool2d(2), _torch_conv(w["skip"][None, None])
        )

    def forward(self, x):
        return self.main(x) + self.skip(x)


class TorchNetwork(nn.Module):
    """One architecture with its weights, NumPy arrays; takes images of shape B x C x H x W."""

    def __init__(self, theta, choice_6):
        super().__init__()
        layers = [
            _torch_conv(theta["stem"]),
            _torch_norm(theta["stem"].shape[3]),
        ]
        for s, cells in enumerate(theta["cells"]):
            if s > 0:
                layers.append(_Reduction(theta["reduce"][s - 1]))
            for n in range(jax.tree.leaves(cells)[0].shape[0]):
                layers.append(
                    _Cell(jax.tree.map(lambda v, n=n: v[n], cells), choice_6)
                )
        self.features = nn.Sequential(
            *layers, _torch_norm(theta["head"].shape[0]), nn.ReLU()
        )
        self.head = nn.Linear(*theta["head"].shape)
        self.head.weight.data = torch.from_numpy(theta["head"].T.copy())
        self.head.bias.data = torch.from_numpy(theta["bias"].copy())

    def forward(self, x):
        return self.head(self.features(x).mean((2, 3)))
