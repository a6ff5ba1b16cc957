"""NAS-Bench-201's networks as a user without this library would write them: what `candidates.py` compares with.

The same function of the same weights as `jaxhypernas.targets.cell_network`: stem, three stages of cells, residual
reductions, head; BatchNorm by the statistics of the batch.
"""

from functools import partial

import jax
import jax.numpy as jnp
import torch
from jax import lax
from torch import nn

from jaxhypernas.spaces.nasbench201 import EDGES

NAMES = ("none", "skip_connect", "nor_conv_1x1", "nor_conv_3x3", "avg_pool_3x3")


# --- JAX: `lax.switch` under `jax.vmap`, XLA's convolutions, automatic differentiation ------------------------------


def _conv(x, w, stride=1):
    pad = [(k // 2,) * 2 for k in w.shape[:2]]
    return lax.conv_general_dilated(x, w, (stride, stride), pad, dimension_numbers=("NHWC", "HWIO", "NHWC"))


def _norm(x):
    mean, var = x.mean((0, 1, 2), keepdims=True), x.var((0, 1, 2), keepdims=True)
    return (x - mean) * lax.rsqrt(var + 1e-5)


def _window_mean(x):
    sums = partial(
        lax.reduce_window,
        init_value=0.0,
        computation=lax.add,
        window_dimensions=(1, 3, 3, 1),
        window_strides=(1, 1, 1, 1),
        padding="SAME",
    )
    return sums(x) / sums(jnp.ones((1, *x.shape[1:3], 1)))


def _branches(w, edge):
    return (
        jnp.zeros_like,
        lambda x: x,
        lambda x: _norm(_conv(jax.nn.relu(x), w["nor_conv_1x1"]["conv0"][edge])),
        lambda x: _norm(_conv(jax.nn.relu(x), w["nor_conv_3x3"]["conv0"][edge])),
        _window_mean,
    )


def jax_network(theta, choice_6, x_BxHxWxC: jax.Array) -> jax.Array:
    """Logits; ``choice_6`` (indices into NAMES) is an array, or a tuple to compile one architecture alone."""
    alone = isinstance(choice_6, tuple)
    x = _norm(_conv(x_BxHxWxC, theta["stem"]))
    for s, cells in enumerate(theta["cells"]):
        if s > 0:
            w = theta["reduce"][s - 1]
            y = _norm(_conv(jax.nn.relu(x), w["a"], 2))
            y = _norm(_conv(jax.nn.relu(y), w["b"]))
            B, H, W, C = x.shape
            x = y + _conv(x.reshape(B, H // 2, 2, W // 2, 2, C).mean((2, 4)), w["skip"][None, None])
        for n in range(jax.tree.leaves(cells)[0].shape[0]):
            w = jax.tree.map(lambda v, n=n: v[n], cells)
            states = [x]
            for to in (1, 2, 3):
                state = jnp.zeros_like(x)
                for edge, (end, start) in enumerate(EDGES):
                    if end == to and alone:
                        state += _branches(w, edge)[choice_6[edge]](states[start])
                    elif end == to:
                        state += lax.switch(choice_6[edge], _branches(w, edge), states[start])
                states.append(state)
            x = states[3]
    return jax.nn.relu(_norm(x)).mean((1, 2)) @ theta["head"] + theta["bias"][None]


# --- PyTorch: a module per architecture -----------------------------------------------------------------------------


def _torch_conv(w, stride=1):
    kernel = torch.from_numpy(w.copy()).permute(3, 2, 0, 1)
    O, I, k, _ = kernel.shape
    conv = nn.Conv2d(I, O, k, stride, k // 2, bias=False)
    conv.weight.data = kernel.contiguous(memory_format=torch.channels_last)
    return conv


def _torch_norm(C):
    return nn.BatchNorm2d(C, affine=False, track_running_stats=False)


def _relu_conv_norm(w, stride=1):
    return nn.Sequential(nn.ReLU(), _torch_conv(w, stride), _torch_norm(w.shape[3]))


class _Cell(nn.Module):
    def __init__(self, w, choice_6):
        super().__init__()
        self.edges = nn.ModuleDict()
        for edge, choice in enumerate(choice_6):
            name = NAMES[choice]
            if name == "skip_connect":
                self.edges[str(edge)] = nn.Identity()
            elif name == "avg_pool_3x3":
                self.edges[str(edge)] = nn.AvgPool2d(3, 1, 1, count_include_pad=False)
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
        self.main = nn.Sequential(_relu_conv_norm(w["a"], 2), _relu_conv_norm(w["b"]))
        self.skip = nn.Sequential(nn.AvgPool2d(2), _torch_conv(w["skip"][None, None]))

    def forward(self, x):
        return self.main(x) + self.skip(x)


class TorchNetwork(nn.Module):
    """One architecture with its weights, NumPy arrays; takes images of shape B x C x H x W."""

    def __init__(self, theta, choice_6):
        super().__init__()
        layers = [_torch_conv(theta["stem"]), _torch_norm(theta["stem"].shape[3])]
        for s, cells in enumerate(theta["cells"]):
            if s > 0:
                layers.append(_Reduction(theta["reduce"][s - 1]))
            for n in range(jax.tree.leaves(cells)[0].shape[0]):
                layers.append(_Cell(jax.tree.map(lambda v, n=n: v[n], cells), choice_6))
        self.features = nn.Sequential(*layers, _torch_norm(theta["head"].shape[0]), nn.ReLU())
        self.head = nn.Linear(*theta["head"].shape)
        self.head.weight.data = torch.from_numpy(theta["head"].T.copy())
        self.head.bias.data = torch.from_numpy(theta["bias"].copy())

    def forward(self, x):
        return self.head(self.features(x).mean((2, 3)))
