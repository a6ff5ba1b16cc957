"""Memory-bank networks a second time, from their string alone.

Networks are lists of banks, concatenation and kernels of their true sizes, in plain
NumPy and float64. There are no slots, padding or masks, and nothing is imported from
the package.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

OP_KINDS = ("1000", "1010", "1100", "1110", "1111")


@dataclass(frozen=True)
class Conv:
    kernel: tuple[int, int]
    dilation: tuple[int, int]
    groups: int


@dataclass(frozen=True)
class Op:
    reads: list[int]
    writes: list[int]
    width: int
    """Units of output."""

    convs: dict[int, Conv]

    @property
    def kind(self) -> str:
        return "".join(str(int(c in self.convs)) for c in range(4))


@dataclass(frozen=True)
class Block:
    bank: int
    """Units in a bank."""

    ops: list[Op]

    def read_units(self, op: Op) -> int:
        return len(op.reads) * self.bank


def parse(text: str) -> list[Block]:
    """``b2|0.1>2.3:4:0=3x5d1x2g2:2=3x3d1x1g1|.../.../...``"""
    return [_parse_block(block) for block in text.split("/")]


def _parse_block(text: str) -> Block:
    head, *ops = text.split("|")
    assert head[0] == "b"
    return Block(int(head[1:]), [_parse_op(op) for op in ops])


def _parse_op(text: str) -> Op:
    banks, width, *convs = text.split(":")
    reads, writes = (
        [int(i) for i in side.split(".")] for side in banks.split(">")
    )
    return Op(reads, writes, int(width), dict(_parse_conv(c) for c in convs))


def _parse_conv(text: str) -> tuple[int, Conv]:
    index, rest = text.split("=")
    kernel, rest = rest.split("d")
    dilation, groups = rest.split("g")
    (kh, kw), (dh, dw) = (
        map(int, pair.split("x")) for pair in (kernel, dilation)
    )
    return int(index), Conv((kh, kw), (dh, dw), int(groups))


def bottleneck(config, units_read: int, width: int) -> int:
    """Output units of an op's 1x1: a multiple of the width, at most the units read."""
    times = max(1, min(units_read // width, config.bottleneck))
    return min(times * width, units_read, config.max_bottleneck * config.units)


def input_banks(config, b: int, bank: int) -> int:
    return config.in_units[b] // bank


def written_banks(config, b: int, block: Block) -> int:
    banks = input_banks(config, b, block.bank)
    for op in block.ops:
        banks = max(banks, max(op.writes) + 1)
    return banks


def assert_valid(config, text: str) -> None:
    """Checks, without the library, that the network belongs to the space."""
    blocks = parse(text)
    assert len(blocks) == 3
    for b, block in enumerate(blocks):
        filled = input_banks(config, b, block.bank)
        assert 1 <= block.bank <= config.units and filled >= 1
        assert len(block.ops) <= config.slots
        most = min(
            filled + config.depth * config.units // block.bank,
            config.memory_units[b] // block.bank,
        )
        budget = config.positions[b]
        for op in block.ops:
            assert op.reads == sorted(set(op.reads)) and op.writes == sorted(
                set(op.writes)
            )
            assert op.reads[-1] < filled and op.writes[-1] < most
            new = [w for w in op.writes if w >= filled]
            assert new == list(range(filled, filled + len(new)))
            filled += len(new)
            assert 0 < op.width <= config.units and op.width % block.bank == 0
            assert len(op.writes) * block.bank >= op.width
            positions, rest = divmod(block.read_units(op), config.compression)
            assert rest == 0
            budget -= positions
            assert op.kind in OP_KINDS
            for conv in op.convs.values():
                assert (
                    conv.groups <= config.max_groups
                    and config.unit % conv.groups == 0
                )
                for k, d in zip(conv.kernel, conv.dilation, strict=True):
                    assert k in (3, 5, 7) and k <= config.max_kernel
                    assert (
                        1
                        <= d
                        <= min({3: 3, 5: 2, 7: 1}[k], config.max_dilation)
                    )
        assert budget >= 0


def conv2d(x, w, stride=1, dilation=(1, 1), groups=1):
    """Zero-padded convolution, centred on every stride-th position, NHWC.

    The kernel is KH x KW x in/groups x out.
    """
    kh, kw, rows, columns = w.shape
    assert x.shape[-1] == rows * groups and columns % groups == 0
    sizes, pads = [], []
    for n, k, d in zip(x.shape[1:3], (kh, kw), dilation, strict=True):
        size = -(-n // stride)
        sizes.append(size)
        pads.append(((k - 1) * d // 2,) * 2)
    x = np.pad(x, ((0, 0), *pads, (0, 0)))
    outputs = []
    for g in range(groups):
        x_g = x[..., g * rows : (g + 1) * rows]
        w_g = w[..., g * (columns // groups) : (g + 1) * (columns // groups)]
        y = 0
        for i in range(kh):
            for j in range(kw):
                top, left = i * dilation[0], j * dilation[1]
                seen = x_g[:, top : top + (sizes[0] - 1) * stride + 1 : stride]
                y = (
                    y
                    + seen[
                        :,
                        :,
                        left : left + (sizes[1] - 1) * stride + 1 : stride,
                    ]
                    @ w_g[i, j]
                )
        outputs.append(y)
    return np.concatenate(outputs, -1)


def relu(x):
    return np.maximum(x, 0)


def batch_norm(x):
    return (x - x.mean((0, 1, 2))) / np.sqrt(x.var((0, 1, 2)) + 1e-5)


def halve(x):
    """Means of 2x2 windows without an odd last row or column."""
    height, width = x.shape[1] // 2 * 2, x.shape[2] // 2 * 2
    x = x[:, :height, :width]
    return (
        x[:, ::2, ::2] + x[:, 1::2, ::2] + x[:, ::2, 1::2] + x[:, 1::2, 1::2]
    ) / 4


class Reference:
    """One network with weights of their true sizes.

    They are cut from the largest, ``theta``, a dict of NumPy arrays.
    """

    output_scale = 0.1

    def __init__(self, config, image, theta, text):
        self.config, self.image, self.blocks = config, image, parse(text)
        self.theta = theta
        self.used: Any = _map(lambda w: np.zeros(w.shape, bool), theta)
        """Which entries of theta matter: live ones only."""
        # Each weight, the pixels that it is applied to, and its live output channels.
        self.weights = []
        sizes = [tuple(-(-n // config.stem_stride) for n in image[:2])]
        sizes += [
            tuple(n // 2 for n in sizes[0]),
            tuple(n // 4 for n in sizes[0]),
        ]
        self.pixels = [h * w for h, w in sizes]
        live = [
            input_banks(config, b, block.bank) * block.bank * config.unit
            for b, block in enumerate(self.blocks)
        ]
        inputs = [n * config.unit for n in config.in_units]

        self.stem = self._take(
            theta["stem"],
            self.used["stem"],
            np.s_[:, :, :, : inputs[0]],
            self.pixels[0],
            live[0],
        )
        self.ops, self.transitions = [], []
        self.op_weights = []
        for b, block in enumerate(self.blocks):
            before = len(self.weights)
            self.ops.append(self._block_weights(b, block))
            self.op_weights += self.weights[before:]
            if b < 2:
                rows = (
                    written_banks(config, b, block) * block.bank * config.unit
                )
                cut = np.s_[:rows, : inputs[b + 1]]
                self.transitions.append(
                    self._take(
                        theta["transition"][b],
                        self.used["transition"][b],
                        cut,
                        self.pixels[b + 1],
                        live[b + 1],
                    )
                )
        rows = (
            written_banks(config, 2, self.blocks[2])
            * self.blocks[2].bank
            * config.unit
        )
        self.head = self._take(
            theta["head"], self.used["head"], np.s_[:rows], 1
        )
        self.bias = self._take(theta["bias"], self.used["bias"], np.s_[:], 0)

    def _take(self, leaf, used, cut, pixels, live=None):
        """Cut a true-size weight and keep account of it."""
        weight = np.asarray(leaf[cut], np.float64)
        live = weight.shape[-1] if live is None else live
        used[cut][..., :live] = True
        self.weights.append((weight, pixels, live))
        return weight

    def _block_weights(self, b, block):
        """One dict per op: its 1x1 and its convolutions."""
        N, K, start, ops = self.config.unit, self.config.max_kernel, 0, []
        for p, op in enumerate(block.ops):
            read = block.read_units(op)
            middle, width = (
                bottleneck(self.config, read, op.width) * N,
                op.width * N,
            )
            cut = np.s_[start * N : (start + read) * N, :middle]
            weights = {
                "1x1": self._take(
                    self.theta["op"][b],
                    self.used["op"][b],
                    cut,
                    self.pixels[b],
                )
            }
            start += read
            for c, conv in op.convs.items():
                leaf, used = self.theta["conv"][b][c], self.used["conv"][b][c]
                kh, kw = conv.kernel
                rows = (width if c in (1, 3) else middle) // conv.groups
                top, left = (K - kh) // 2, (K - kw) // 2
                # A leading axis of 1: one kernel for all ops.
                slot = p if leaf.shape[0] > 1 else 0
                cut = np.s_[
                    slot, top : top + kh, left : left + kw, :rows, :width
                ]
                weight = self._take(leaf, used, cut, self.pixels[b])
                weights[c] = weight * np.sqrt(
                    K * K * leaf.shape[3] / (kh * kw * rows)
                )
            ops.append(weights)
        return ops

    def logits(self, x):
        x = conv2d(
            np.asarray(x, np.float64), self.stem, self.config.stem_stride
        )
        for b, block in enumerate(self.blocks):
            size = block.bank * self.config.unit
            banks = [
                x[..., i * size : (i + 1) * size]
                for i in range(input_banks(self.config, b, block.bank))
            ]
            for op, weights in zip(block.ops, self.ops[b], strict=True):
                self._run(op, weights, banks, size)
            x = np.concatenate(banks, -1)
            if b < 2:
                x = halve(relu(batch_norm(x))) @ self.transitions[b]
        return relu(batch_norm(x)).mean((1, 2)) @ self.head + self.bias

    def _run(self, op, weights, banks, size):
        """Read banks, compute, add to banks (new ones begin as the output alone)."""
        x = np.concatenate([banks[i] for i in op.reads], -1)
        x = relu(batch_norm(relu(batch_norm(x)) @ weights["1x1"]))

        def path(x, first, second):
            for c in (first, second):
                if c in op.convs:
                    x = relu(x) if c == second else x
                    x = conv2d(
                        x,
                        weights[c],
                        1,
                        op.convs[c].dilation,
                        op.convs[c].groups,
                    )
            return x

        y = path(x, 0, 1)
        if 2 in op.convs:
            y = y + path(x, 2, 3)
        chunks = [
            self.output_scale * y[..., i : i + size]
            for i in range(0, y.shape[-1], size)
        ]
        for n, bank in enumerate(op.writes):
            chunk = chunks[n % len(chunks)]
            if bank < len(banks):
                banks[bank] = banks[bank] + chunk
            else:
                assert bank == len(banks)
                banks.append(chunk)

    def counts(self):
        """Parameters and multiply-adds, all and live, and the latter of ops.

        They are sizes of the very arrays that ``logits`` multiplies with.
        """
        totals = np.zeros(4, np.int64)
        for weight, pixels, live in self.weights:
            params, live_params = (
                int(np.prod(weight.shape)),
                int(np.prod(weight[..., :live].shape)),
            )
            totals += np.array(
                [params, params * pixels, live_params, live_params * pixels]
            )
        ops = sum(
            weight.size * pixels for weight, pixels, _ in self.op_weights
        )
        return (*totals.tolist(), ops)


def _map(f, tree) -> Any:
    if isinstance(tree, dict):
        return {k: _map(f, v) for k, v in tree.items()}
    return [_map(f, v) for v in tree] if isinstance(tree, list) else f(tree)


def graph(config, text):
    """Names of the nodes, None where there is none, and the set of edges (to, from)."""
    Q = config.slots + 1
    names, edges = [None] * (3 * Q + 1), set()
    for b, block in enumerate(parse(text)):
        names[b * Q] = "input" if b == 0 else "transition"
        writers = {
            bank: [b * Q] for bank in range(input_banks(config, b, block.bank))
        }
        for p, op in enumerate(block.ops):
            node = b * Q + 1 + p
            names[node] = op.kind
            edges |= {
                (node, source) for bank in op.reads for source in writers[bank]
            }
            for bank in op.writes:
                writers.setdefault(bank, []).append(node)
        edges |= {((b + 1) * Q, b * Q + i) for i in range(len(block.ops) + 1)}
    names[-1] = "output"
    return names, edges


def encoding(config, text):
    """The encoding of SMASH: k rows x positions x channels of -1 and +1."""
    M, N_kernels = max(config.memory_units), (config.max_kernel - 1) // 2
    groups = [
        g for g in range(1, config.max_groups + 1) if config.unit % g == 0
    ]
    sections = [
        M,
        M,
        3,
        config.units,
        8 * config.max_dilation,
        8 * N_kernels,
        4,
        4 * len(groups),
    ]
    starts = np.concatenate([[0], np.cumsum(sections)])
    (
        read,
        write,
        block_at,
        width_at,
        dilation_at,
        kernel_at,
        active_at,
        groups_at,
        channels,
    ) = starts.tolist()
    code = np.full((config.units, sum(config.positions), channels), -1.0)
    for b, block in enumerate(parse(text)):
        position = sum(config.positions[:b])
        for op in block.ops:
            # The bank that each unit read comes from.
            units = [bank for bank in op.reads for _ in range(block.bank)]
            on = [write + bank for bank in op.writes] + [
                block_at + b,
                width_at + op.width - 1,
            ]
            for c, conv in op.convs.items():
                on += [
                    active_at + c,
                    groups_at + c * len(groups) + groups.index(conv.groups),
                ]
                for axis in range(2):
                    on.append(
                        dilation_at
                        + (2 * c + axis) * config.max_dilation
                        + conv.dilation[axis]
                        - 1
                    )
                    on.append(
                        kernel_at
                        + (2 * c + axis) * N_kernels
                        + (conv.kernel[axis] - 3) // 2
                    )
            rows = -(
                -bottleneck(config, len(units), op.width)
                // config.max_bottleneck
            )
            for first in range(0, len(units), config.compression):
                here = on + [
                    read + bank
                    for bank in units[first : first + config.compression]
                ]
                code[:rows, position, here] = 1
                position += 1
    return code
