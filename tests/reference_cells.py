"""Networks of cells, written plainly: Flax layers, built from an architecture's string.

Written from the papers' definitions and the documented layout of the weights. The code
under test shares nothing with it. One architecture, no padding, no branches on arrays.
"""

import re
from dataclasses import dataclass, field
from functools import partial
from itertools import product
from math import prod

import jax
import jax.numpy as jnp
from flax import linen, nnx


@dataclass(frozen=True)
class Node:
    """Ops, added up, applied to the sum of what is read; added to the state written."""

    ops: tuple[str, ...]
    reads: tuple[int, ...]
    writes: int


@dataclass(frozen=True)
class Rules:
    """What the strings of a space may say."""

    ops: tuple[str, ...]
    inputs: int
    per_block: int  # nodes that write one state
    most_reads: int
    most_ops: int


RULES = {
    "nasbench201": Rules(
        ("skip_connect", "nor_conv_1x1", "nor_conv_3x3", "avg_pool_3x3"),
        1,
        0,
        1,
        1,
    ),
    "ghn": Rules(
        (
            "skip_connect",
            "nor_conv_1x1",
            "sep_conv_3x3",
            "sep_conv_5x5",
            "dil_conv_3x3",
            "dil_conv_5x5",
            "avg_pool_3x3",
            "max_pool_3x3",
        ),
        1,
        1,
        2,
        1,
    ),
    "pnas": Rules(
        (
            "sep_conv_3x3",
            "sep_conv_5x5",
            "sep_conv_7x7",
            "conv_1x7_7x1",
            "skip_connect",
            "avg_pool_3x3",
            "max_pool_3x3",
            "dil_conv_3x3",
        ),
        2,
        2,
        1,
        1,
    ),
    "one_shot": Rules(
        (
            "skip_connect",
            "sep_conv_3x3",
            "sep_conv_5x5",
            "sep_conv_7x7",
            "conv_1x7_7x1",
            "max_pool_3x3",
            "avg_pool_3x3",
        ),
        2,
        1,
        2,
        2,
    ),
}


def parse(space: str, text: str) -> list[Node]:
    """The nodes of a cell, in order; a node without ops writes nothing."""
    if space == "nasbench201":
        nodes = []
        for to, part in enumerate(text.split("+"), 1):
            for name, start in re.findall(r"(\w+)~(\d)", part):
                nodes.append(
                    Node(() if name == "none" else (name,), (int(start),), to)
                )
        return nodes
    rules, nodes = RULES[space], []
    for n, part in enumerate(text.split(";")):
        writes = rules.inputs + n // rules.per_block
        match = re.fullmatch(r"([\w+]+)\(([\d,]+)\)", part)
        if match is None:
            assert part == "-", part
            nodes.append(Node((), (), writes))
        else:
            nodes.append(
                Node(
                    tuple(match[1].split("+")),
                    tuple(int(s) for s in match[2].split(",")),
                    writes,
                )
            )
    return nodes


def assert_valid(space: str, text: str, nodes: int) -> None:
    """The string is an architecture; only NAS-Bench-201 may lack nodes."""
    rules, found = RULES[space], parse(space, text)
    assert len(found) == nodes
    if space == "nasbench201":
        assert re.fullmatch(
            r"\|\w+~0\|\+\|\w+~0\|\w+~1\|\+\|\w+~0\|\w+~1\|\w+~2\|", text
        )
    for node in found:
        assert set(node.ops) <= set(rules.ops)
        assert len(set(node.ops)) == len(node.ops) <= rules.most_ops
        assert len(set(node.reads)) == len(node.reads) <= rules.most_reads
        assert all(0 <= s < node.writes for s in node.reads)
        assert space == "nasbench201" or (node.ops and node.reads)


def output(space: str, nodes: list[Node]) -> list[int]:
    """States that make the cell's output."""
    if space == "nasbench201":
        return [3]
    written = sorted({node.writes for node in nodes if node.ops})
    read = {s for node in nodes if node.ops for s in node.reads}
    return [s for s in written if s not in read] if space == "ghn" else written


def live(space: str, nodes: list[Node]) -> tuple[list[bool], set[int]]:
    """Whether each node lies on a path from an input to the output; such inputs.

    Found by walking every path.
    """
    alive, inputs = [False] * len(nodes), set()

    def walk(state, path):
        if state in output(space, nodes):
            inputs.add(start)
            for n in path:
                alive[n] = True
        for n, node in enumerate(nodes):
            if node.ops and state in node.reads:
                walk(node.writes, [*path, n])

    for start in range(RULES[space].inputs):
        walk(start, [])
    return alive, inputs


def edges(
    space: str, nodes: list[Node]
) -> tuple[list[tuple[str, ...]], set[tuple[int, int]]]:
    """The graph without absent nodes: each node's kind, and the edges (to, from)."""
    first, last = RULES[space].inputs, RULES[space].inputs + len(nodes)
    makers = {s: [s] for s in range(first)}
    for n, node in enumerate(nodes):
        if node.ops:
            makers.setdefault(node.writes, []).append(first + n)
    readers = [
        (first + n, s)
        for n, node in enumerate(nodes)
        if node.ops
        for s in node.reads
    ]
    found = {
        (reader, maker) for reader, s in readers for maker in makers.get(s, [])
    }
    found |= {
        (last, maker)
        for s in output(space, nodes)
        for maker in makers.get(s, [])
    }
    return [("input",)] * first + [node.ops for node in nodes] + [
        ("output",)
    ], found


@dataclass
class Tally:
    """Weights (BatchNorm's pairs, too) and multiply-adds that ran: all, live.

    The last of ``counts`` are the live multiply-adds inside of cells.
    """

    on: bool = True
    in_cell: bool = False
    counts: list[int] = field(default_factory=lambda: [0, 0, 0, 0, 0])

    def add(self, params, flops):
        for i, n in enumerate((params, flops)):
            self.counts[i] += n
            self.counts[i + 2] += n * self.on
        self.counts[4] += flops * (self.on and self.in_cell)


class Conv(nnx.Module):
    """Without bias, zero padding, centred on every stride-th position."""

    def __init__(
        self,
        kernel,
        tally: Tally,
        stride: int = 1,
        dilation: int = 1,
        depthwise: bool = False,
    ):
        K, L, inputs, outputs = kernel.shape
        self.tally, self.size = tally, kernel.size
        self.layer = nnx.Conv(
            outputs if depthwise else inputs,
            outputs,
            (K, L),
            stride,
            padding=[(n // 2 * dilation,) * 2 for n in (K, L)],
            kernel_dilation=dilation,
            feature_group_count=outputs if depthwise else 1,
            use_bias=False,
            param_dtype=kernel.dtype,
            kernel_init=lambda key, shape, dtype: kernel.reshape(shape),
            rngs=nnx.Rngs(0),
        )

    def __call__(self, x):
        y = self.layer(x)
        self.tally.add(self.size, self.size * y.shape[1] * y.shape[2])
        return y


class BatchNorm(nnx.Module):
    """By the batch's statistics; counted with a scale and a shift that it lacks."""

    def __init__(self, tally: Tally):
        self.tally = tally

    def __call__(self, x):
        self.tally.add(2 * x.shape[-1], 0)
        mean, variance = (
            f(x, (0, 1, 2), keepdims=True) for f in (jnp.mean, jnp.var)
        )
        return (x - mean) / jnp.sqrt(variance + 1e-5)


def op(name: str, weights, tally: Tally) -> nnx.Sequential:
    """Layers of an op; weights by the names of the theta's leaves."""

    def relu_conv_bn(kernel):
        return [jax.nn.relu, Conv(kernel, tally), BatchNorm(tally)]

    def separable(i, dilation):
        deep, wide = weights[f"deep{i}"], weights[f"wide{i}"]
        kernels = (
            Conv(deep[:, :, None], tally, 1, dilation, True),
            Conv(wide[None, None], tally),
        )
        return [jax.nn.relu, *kernels, BatchNorm(tally)]

    kind = name[: name.index("_")]
    if name == "skip_connect":
        layers = [lambda x: x]
    elif kind == "avg":
        layers = [partial(averaged, window=3, padding="SAME")]
    elif kind == "max":
        layers = [lambda x: linen.max_pool(x, (3, 3), padding="SAME")]
    elif kind == "sep":
        layers = separable(0, 1) + separable(1, 1)
    elif kind == "dil":
        layers = separable(0, 2)
    elif kind == "nor":
        layers = relu_conv_bn(weights["conv0"])
    else:
        assert (
            name == "conv_1x7_7x1"
            and weights["conv0"].shape[:2] == (1, 7)
            and weights["conv1"].shape[:2] == (7, 1)
        )
        layers = relu_conv_bn(weights["conv0"]) + relu_conv_bn(
            weights["conv1"]
        )
    return nnx.Sequential(*layers)


class Cell(nnx.Module):
    """One cell; weights[op][leaf][node] are this cell's."""

    def __init__(self, space: str, nodes: list[Node], weights, tally: Tally):
        self.space, self.nodes, self.tally = space, nnx.static(nodes), tally
        self.alive = nnx.static(live(space, nodes)[0])
        self.layers = nnx.List(
            nnx.List(
                [
                    op(
                        name,
                        {k: w[n] for k, w in weights.get(name, {}).items()},
                        tally,
                    )
                    for name in node.ops
                ]
            )
            for n, node in enumerate(nodes)
        )

    def __call__(self, inputs):
        states = list(inputs)
        for node, layers, alive in zip(
            self.nodes, self.layers, self.alive, strict=True
        ):
            if node.writes == len(states):
                states.append(jnp.zeros_like(inputs[0]))
            x, self.tally.on = sum(states[s] for s in node.reads), alive
            for layer in layers:
                states[node.writes] = states[node.writes] + layer(x)
        self.tally.on = True
        if len(inputs) == 2:
            return jnp.concatenate(states[2:], -1)
        return sum(
            (states[s] for s in output(self.space, self.nodes)),
            jnp.zeros_like(inputs[0]),
        )


class Block(nnx.Module):
    """The residual block between stages."""

    def __init__(self, weights, tally: Tally):
        self.a, self.b = (
            Conv(weights["a"], tally, 2),
            Conv(weights["b"], tally),
        )
        self.skip, self.norm = (
            Conv(weights["skip"][None, None], tally),
            BatchNorm(tally),
        )

    def __call__(self, x):
        y = self.norm(self.a(jax.nn.relu(x)))
        return self.norm(self.b(jax.nn.relu(y))) + self.skip(halved(x))


def averaged(x, window: int, stride: int = 1, padding: str = "VALID"):
    """Over positions inside the image."""
    with jax.numpy_dtype_promotion("standard"):  # Flax divides by an int64
        return linen.avg_pool(
            x,
            (window, window),
            (stride, stride),
            padding,
            count_include_pad=False,
        )


halved = partial(averaged, window=2, stride=2)


class Network(nnx.Module):
    """The whole network of an architecture, from theta."""

    def __init__(self, space: str, text: str, theta):
        nodes, self.tally = parse(space, text), Tally()
        self.inputs, self.cells = RULES[space].inputs, nnx.List()
        self.used = nnx.static(live(space, nodes)[1])
        self.stem, self.norm = (
            Conv(theta["stem"], self.tally),
            BatchNorm(self.tally),
        )
        number = jax.tree.leaves(theta["cells"][0])[0].shape[0]
        for weights, k in product(theta["cells"], range(number)):
            own = jax.tree.map(lambda w, k=k: w[k], weights)
            self.cells.append(Cell(space, nodes, own, self.tally))
        if self.inputs == 1:
            self.blocks = nnx.List(
                Block(w, self.tally) for w in theta["reduce"]
            )
        else:
            self.project = nnx.data(
                [w[k] for w in theta["project"] for k in range(number)]
            )
        self.head = nnx.Linear(
            *theta["head"].shape,
            param_dtype=theta["head"].dtype,
            kernel_init=lambda *_: theta["head"],
            bias_init=lambda *_: theta["bias"],
            rngs=nnx.Rngs(0),
        )

    def __call__(self, x):
        height, per_stage = x.shape[1], len(self.cells) // 3
        x = self.norm(self.stem(x))
        outputs = [x, x]
        for i, cell in enumerate(self.cells):
            self.tally.in_cell = True
            if self.inputs == 2:
                inputs = []
                for back in range(2):
                    x = outputs[-1 - back]
                    while x.shape[1] > height // 2 ** (i // per_stage):
                        x = halved(x)
                    self.tally.on = back in self.used
                    # Rows beyond x's channels would be multiplied with zeros.
                    layer = Conv(
                        self.project[i][back, : x.shape[-1]][None, None],
                        self.tally,
                    )
                    inputs.append(self.norm(layer(jax.nn.relu(x))))
                outputs.append(cell(inputs))
            else:
                if i in (per_stage, 2 * per_stage):
                    self.tally.in_cell = False
                    x = self.blocks[i // per_stage - 1](x)
                    self.tally.in_cell = True
                x = cell([x])
                outputs.append(x)
            self.tally.in_cell = False
        x = jax.nn.relu(self.norm(outputs[-1])).mean((1, 2))
        self.tally.add(
            prod(self.head.kernel.shape) + self.head.out_features,
            prod(self.head.kernel.shape),
        )
        return self.head(x)


def logits(space: str, text: str, theta, x):
    return Network(space, text, theta)(x)


def counts(
    space: str, text: str, theta, image: tuple[int, int, int]
) -> tuple[int, ...]:
    """Parameters, multiply-adds, both on live paths, and the latter in cells.

    They are the sizes of the arrays in use.
    """
    tally = []

    def run(theta, x):
        network = Network(space, text, theta)
        network(x)
        tally.append(tuple(network.tally.counts))

    jax.eval_shape(run, theta, jax.ShapeDtypeStruct((1, *image), jnp.float32))
    return tally[0]
