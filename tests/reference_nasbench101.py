"""NAS-Bench-101's networks in NumPy, as the paper describes them."""

import numpy as np


class Plain:
    """The network of a string; counts the weights and multiply-adds that it uses."""

    def __init__(self, theta, text, cells):
        ops, edges = text.split("|")
        self.theta, self.ops, self.cells = theta, ops.split(), cells
        self.edges = {
            tuple(map(int, edge.split("-"))) for edge in edges.split()
        }
        self.params = self.flops = self.cell_flops = 0

    def conv(self, x, w):
        """Convolution, BatchNorm, ReLU."""
        w = w.reshape(*(1, 1)[: 4 - w.ndim], *w.shape)
        k = w.shape[0]
        padded = np.pad(
            x, ((0, 0), (k // 2, k // 2), (k // 2, k // 2), (0, 0))
        )
        windows = np.lib.stride_tricks.sliding_window_view(
            padded, (k, k), (1, 2)
        )
        y = np.tensordot(windows, w, ((3, 4, 5), (2, 0, 1)))
        self.params += w.size + 2 * w.shape[-1]
        self.flops += w.size * x.shape[1] * x.shape[2]
        y = (y - y.mean((0, 1, 2))) / np.sqrt(y.var((0, 1, 2)) + 1e-5)
        return np.maximum(y, 0)

    def widths(self, channels):
        out = len(self.ops) - 1
        feeding = sorted(u for u, v in self.edges if v == out and u > 0)
        width = {
            u: len(np.array_split(np.arange(channels), len(feeding))[i])
            for i, u in enumerate(feeding)
        }
        for v in reversed(range(1, out)):
            if v not in width:
                width[v] = max(width[t] for u, t in self.edges if u == v)
        return width

    def cell(self, x, w, channels):
        out, width, value = len(self.ops) - 1, self.widths(channels), {}
        for v in range(1, out):
            c = width[v]
            terms = [
                value[u][..., :c] for u in range(1, v) if (u, v) in self.edges
            ]
            if (0, v) in self.edges:
                terms.append(
                    self.conv(x, w["project"][v - 1, : x.shape[-1], :c])
                )
            y = np.sum(terms, 0)
            if self.ops[v] == "maxpool3x3":
                padded = np.pad(
                    y,
                    ((0, 0), (1, 1), (1, 1), (0, 0)),
                    constant_values=-np.inf,
                )
                value[v] = np.lib.stride_tricks.sliding_window_view(
                    padded, (3, 3), (1, 2)
                ).max((-1, -2))
            else:
                value[v] = self.conv(
                    y, w[self.ops[v].split("-")[0]][v - 1, ..., :c, :c]
                )
        y = [value[u] for u in range(1, out) if (u, out) in self.edges]
        terms = [np.concatenate(y, -1)] if y else []
        if (0, out) in self.edges:
            terms.append(self.conv(x, w["project"][5, : x.shape[-1]]))
        return np.sum(terms, 0)

    def __call__(self, x):
        x = self.conv(x, self.theta["stem"])
        for s, stage in enumerate(self.theta["cells"]):
            if s > 0:
                x = np.maximum(x[:, ::2], x[:, 1::2])
                x = np.maximum(x[:, :, ::2], x[:, :, 1::2])
            for i in range(self.cells):
                before = self.flops
                x = self.cell(
                    x,
                    {name: w[i] for name, w in stage.items()},
                    self.theta["stem"].shape[-1] * 2**s,
                )
                self.cell_flops += self.flops - before
        head = self.theta["head"]
        self.params += head.size + head.shape[1]
        self.flops += head.size
        return x.mean((1, 2)) @ head + self.theta["bias"]
