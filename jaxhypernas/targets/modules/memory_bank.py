"""SMASH's networks as Flax NNX source, cut to the channels that are used."""

from collections.abc import Iterator
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxhypernas.archs.memory_bank import (
    BLOCKS,
    Layout,
    MemoryBankArch,
    active_convs,
    layout,
)
from jaxhypernas.archs.sizes import MemoryBankConfig
from jaxhypernas.targets.memory_bank_kernels import (
    bank_routes,
    cut_kernel,
    one_by_one_kernels,
)
from jaxhypernas.types import ImageShape, Module, Params

CLASSES = '''class Op(nnx.Module):
    """BN, ReLU, 1x1, BN, ReLU, then one path of convolutions or the sum of two.

    It reads units of the memory, and adds its own units to others.
    """

    def __init__(
        self,
        reads: tuple[int, ...],
        middle: int,
        width: int,
        paths: tuple,
        writes: tuple[int, ...],
        sources: tuple[int, ...],
        *,
        rngs: nnx.Rngs,
    ):
        def conv(inputs, kernel, dilation, groups):
            border = [k // 2 * d for k, d in zip(kernel, dilation, strict=True)]
            return nnx.Conv(
                inputs,
                width,
                kernel,
                padding=[(size, size) for size in border],
                kernel_dilation=dilation,
                feature_group_count=groups,
                use_bias=False,
                rngs=rngs,
            )

        self.reads, self.writes, self.sources = map(
            channels, (reads, writes, sources)
        )
        self.norm_in = norm(len(self.reads), rngs)
        self.mix = nnx.Linear(
            len(self.reads), middle, use_bias=False, rngs=rngs
        )
        self.norm_mixed = norm(middle, rngs)
        self.paths = nnx.List(
            nnx.List(
                conv(width if i else middle, *layer)
                for i, layer in enumerate(path)
            )
            for path in paths
        )

    def __call__(self, memory: jax.Array) -> jax.Array:
        """Returns the memory after the op, BxHxWxC."""
        x = self.norm_in(memory[..., jnp.array(self.reads)])
        x = jax.nn.relu(self.norm_mixed(self.mix(jax.nn.relu(x))))
        total = 0.0
        for path in self.paths:
            y = path[0](x)
            for conv in path[1:]:
                y = conv(jax.nn.relu(y))
            total = total + y
        added = SCALE * total[..., jnp.array(self.sources)]
        return memory.at[..., jnp.array(self.writes)].add(added)


def channels(units: tuple[int, ...]) -> tuple[int, ...]:
    """The channels of units."""
    return tuple(UNIT * unit + i for unit in units for i in range(UNIT))


class Transition(nnx.Module):
    """BatchNorm, ReLU, means of 2x2 windows, 1x1."""

    def __init__(self, inputs: int, outputs: int, *, rngs: nnx.Rngs):
        self.norm = norm(inputs, rngs)
        self.mix = nnx.Linear(inputs, outputs, use_bias=False, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        """Returns y_BxHxWxC for x_BxHxWxC."""
        return self.mix(halve(jax.nn.relu(self.norm(x))))'''
"""Classes that are the same for all architectures."""


class _Op(NamedTuple):
    """An op of a block."""

    reads: np.ndarray
    """Units of the memory that it reads."""

    middle: int
    """Channels between its 1x1 and its convolutions."""

    width: int
    """Channels of its output."""

    paths: list[list[int]]
    """The convolutions of each path."""

    writes: np.ndarray
    """Units of the memory that it adds to."""

    sources: np.ndarray
    """The unit of its output that it adds to each."""


def memory_bank_module(
    config: MemoryBankConfig,
    scale: float,
    image: ImageShape,
    classes: int,
    arch: MemoryBankArch,
    theta: Params,
) -> Module:
    """Writes the network of one architecture.

    Args:
        config: The sizes of the networks.
        scale: Factor of an op's output.
        image: Height, width and channels of the images.
        classes: Number of classes.
        arch: The architecture.
        theta: Its weights, as in `targets.memory_bank`; arrays of NumPy.
    """
    arch = MemoryBankArch(*map(np.asarray, arch))
    place = layout(config, arch)
    N = config.unit
    memory_3 = np.asarray(place.memory_3) * N
    filled_3 = np.asarray(place.filled_3) * N
    weights = {"stem.kernel": theta["stem"][..., : filled_3[0]]}
    blocks = []
    for b in range(BLOCKS):
        rows, places = jax.tree.map(lambda v, b=b: v[b], (arch, place))
        made = []
        for slot in np.flatnonzero(rows.width_3xP):
            op = _op(config, rows, places, int(slot), config.memory_units[b])
            name = f"blocks.{b}.{len(made)}"
            kernels = one_by_one_kernels(
                config,
                rows,
                places,
                jnp.asarray(theta["op"][b]),
                config.memory_units[b],
            )
            own = _op_weights(
                config,
                rows,
                int(slot),
                op,
                np.asarray(kernels)[slot],
                theta["conv"][b],
            )
            weights.update({f"{name}.{k}": w for k, w in own})
            made.append(_op_text(rows, int(slot), op))
        blocks.append(made)
        if b < BLOCKS - 1:
            kernel = theta["transition"][b]
            weights[f"transitions.{b}.mix.kernel"] = kernel[
                : memory_3[b], : filled_3[b + 1]
            ]
    weights["head.linear.kernel"] = theta["head"][: memory_3[-1]]
    weights["head.linear.bias"] = theta["bias"]
    lines = [
        f"UNIT = {N}",
        f"SCALE = {scale}",
        "",
        "",
        CLASSES,
        "",
        "",
        *_network(config, image, classes, memory_3, filled_3, blocks),
        "",
    ]
    return Module(
        "\n".join(lines), {k: np.asarray(w) for k, w in weights.items()}
    )


def _op(
    config: MemoryBankConfig,
    rows: MemoryBankArch,
    place: Layout,
    slot: int,
    memory_units: int,
) -> _Op:
    bank = int(rows.bank_3)
    unit_M = np.arange(memory_units)
    reads = np.flatnonzero(rows.read_3xPxM[slot][unit_M // bank])
    routes = np.asarray(bank_routes(config, rows, memory_units))[slot]
    routes = routes[: rows.width_3xP[slot]]
    sources, writes = np.nonzero(routes)
    active = active_convs(rows)[slot]
    paths = [[c for c in pair if active[c]] for pair in ((0, 1), (2, 3))]
    return _Op(
        reads,
        int(place.units_out_3xP[slot]) * config.unit,
        int(rows.width_3xP[slot]) * config.unit,
        [path for path in paths if path],
        writes,
        sources,
    )


def _op_weights(
    config: MemoryBankConfig,
    rows: MemoryBankArch,
    slot: int,
    op: _Op,
    one_by_one_CxO: np.ndarray,
    convs: list[np.ndarray],
) -> Iterator[tuple[str, np.ndarray]]:
    """The weights of an op, by name."""
    N = config.unit
    channels = (op.reads[:, None] * N + np.arange(N)).ravel()
    yield (
        "mix.kernel",
        one_by_one_CxO[channels, : op.middle],
    )
    for p, path in enumerate(op.paths):
        for i, c in enumerate(path):
            inputs = op.width if i else op.middle
            common = convs[c].shape[0] == 1
            shared = convs[c][0 if common else slot]
            kernel = np.asarray(rows.kernel_3xPx4x2[slot, c])
            groups = int(rows.groups_3xPx4[slot, c])
            dense = cut_kernel(
                jnp.asarray(shared),
                jnp.asarray(kernel),
                jnp.int32(groups),
                jnp.int32(inputs),
                jnp.int32(op.width),
            )
            yield (
                f"paths.{p}.{i}.kernel",
                _grouped(np.asarray(dense), kernel, groups, inputs, op.width),
            )


def _grouped(
    dense: np.ndarray,
    kernel_2: np.ndarray,
    groups: int,
    inputs: int,
    outputs: int,
) -> np.ndarray:
    """The kernel of a grouped convolution, from a dense one of the largest size."""
    first = (dense.shape[0] - kernel_2) // 2
    end = first + kernel_2
    dense = dense[first[0] : end[0], first[1] : end[1]]
    rows = inputs // groups
    columns = outputs // groups
    return np.concatenate(
        [
            dense[
                :,
                :,
                g * rows : (g + 1) * rows,
                g * columns : (g + 1) * columns,
            ]
            for g in range(groups)
        ],
        -1,
    )


def _op_text(rows: MemoryBankArch, slot: int, op: _Op) -> list[str]:
    """What makes an op."""
    paths = tuple(
        tuple(
            (
                tuple(map(int, rows.kernel_3xPx4x2[slot, c])),
                tuple(map(int, rows.dilation_3xPx4x2[slot, c])),
                int(rows.groups_3xPx4[slot, c]),
            )
            for c in path
        )
        for path in op.paths
    )
    return [
        "Op(",
        f"    reads={tuple(map(int, op.reads))},",
        f"    middle={op.middle},",
        f"    width={op.width},",
        f"    paths={paths},",
        f"    writes={tuple(map(int, op.writes))},",
        f"    sources={tuple(map(int, op.sources))},",
        "    rngs=rngs,",
        "),",
    ]


def _network(
    config: MemoryBankConfig,
    image: ImageShape,
    classes: int,
    memory_3: np.ndarray,
    filled_3: np.ndarray,
    blocks: list[list[list[str]]],
) -> Iterator[str]:
    """The class of a network."""
    K = config.stem_kernel
    yield "class Network(nnx.Module):"
    yield f'    """{BLOCKS} blocks, each with a memory."""'
    yield ""
    yield f"    memory = {tuple(map(int, memory_3))}"
    yield '    """Channels of each memory."""'
    yield ""
    yield "    def __init__(self, *, rngs: nnx.Rngs):"
    yield "        self.stem = nnx.Conv("
    yield f"            {image[2]},"
    yield f"            {filled_3[0]},"
    yield f"            ({K}, {K}),"
    yield f"            strides={config.stem_stride},"
    yield f"            padding=[({K // 2}, {K // 2})] * 2,"
    yield "            use_bias=False,"
    yield "            rngs=rngs,"
    yield "        )"
    yield "        self.blocks = nnx.List()"
    for ops in blocks:
        yield "        self.blocks.append("
        yield "            nnx.List("
        yield "                ["
        for lines in ops:
            yield from (f"                    {line}" for line in lines)
        yield "                ]"
        yield "            )"
        yield "        )"
    yield "        self.transitions = nnx.List("
    yield "            ["
    for b in range(BLOCKS - 1):
        sizes = f"{memory_3[b]}, {filled_3[b + 1]}"
        yield f"                Transition({sizes}, rngs=rngs),"
    yield "            ]"
    yield "        )"
    yield f"        self.head = Head({memory_3[-1]}, {classes}, rngs=rngs)"
    yield ""
    yield "    def __call__(self, x: jax.Array) -> jax.Array:"
    yield '        """Returns logits_BxL for normalised images x_BxHxWxC."""'
    yield "        x = self.stem(x)"
    yield "        for b, ops in enumerate(self.blocks):"
    yield "            if b > 0:"
    yield "                x = self.transitions[b - 1](x)"
    yield "            empty = self.memory[b] - x.shape[-1]"
    yield "            x = jnp.pad(x, ((0, 0),) * 3 + ((0, empty),))"
    yield "            for op in ops:"
    yield "                x = op(x)"
    yield "        return self.head(x)"
