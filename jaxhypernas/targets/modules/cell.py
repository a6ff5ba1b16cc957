"""Networks of cells as Flax NNX source, cut to what their outputs depend on.

Nodes and inputs that no output depends on are left out, and so are channels that are
always 0: those of states that no node writes, and those that fill up a pooled output.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from jaxhypernas.archs.cells import STAGES, CellArch, CellStructure
from jaxhypernas.archs.sizes import CellConfig
from jaxhypernas.targets.ops import OPS
from jaxhypernas.types import ImageShape, Module, Params, UserError


class _Node(NamedTuple):
    """A node that the output depends on."""

    number: int
    """Which node it is."""

    ops: tuple[str, ...]
    """Names of its ops."""

    reads: tuple[int, ...]
    """States that it reads; none is always 0."""

    writes: int
    """State that it writes."""

    def layer(self, op: str) -> str:
        """Name of the layer of an op."""
        return f"node{self.number}" + f"_{op}" * (len(self.ops) > 1)


class _Cell(NamedTuple):
    """A cell without what its output does not depend on."""

    nodes: tuple[_Node, ...]
    """Its nodes."""

    inputs: tuple[int, ...]
    """Inputs that are read."""

    outputs: tuple[int, ...]
    """States that make the output."""


def cell_module(
    structure: CellStructure,
    config: CellConfig,
    image: ImageShape,
    classes: int,
    arch: CellArch,
    theta: Params,
) -> Module:
    """Writes the network of one cell.

    Args:
        structure: The facts that all cells of the space share.
        config: Channels of the first stage, and cells per stage.
        image: Height, width and channels of the images.
        classes: Number of classes.
        arch: The cell.
        theta: Its weights, as in `cell.cell_network`; arrays of NumPy.

    Raises:
        UserError: The output of the cell does not depend on its inputs, or an op has no
            source.
    """
    cell = _live(structure, arch)
    if not cell.outputs:
        raise UserError(
            "arch: no path leads from the input to the output of this cell"
        )
    for name in {op for node in cell.nodes for op in node.ops}:
        if OPS[name].module is None:
            raise UserError(f"arch: op {name} cannot be exported")
    weights = {"stem.conv.kernel": theta["stem"]}
    if structure.stack == "residual":
        network = _residual(config, image, classes, theta, weights)
        rows = np.arange(theta["head"].shape[0])
    else:
        network, rows = _projected(
            structure, config, image, classes, cell, theta, weights
        )
    for s in range(STAGES):
        for j in range(config.cells):
            for node in cell.nodes:
                _node_weights(theta["cells"][s], s, j, node, weights)
    weights["head.linear.kernel"] = theta["head"][rows]
    weights["head.linear.bias"] = theta["bias"]
    source = "\n".join([*_cell_lines(structure, cell), "", "", *network, ""])
    return Module(source, weights)


def _live(structure: CellStructure, arch: CellArch) -> _Cell:
    """Follows the arrows forwards, from the inputs, and backwards, from the output."""
    op_NxO, read_NxS, out_S = map(np.asarray, arch)
    depends = set(range(structure.inputs))
    nodes = []
    for n, write in enumerate(structure.write_N):
        reads = tuple(s for s in np.flatnonzero(read_NxS[n]) if s in depends)
        ops = tuple(structure.ops[o] for o in np.flatnonzero(op_NxO[n]))
        if reads and ops:
            nodes.append(_Node(n, ops, tuple(map(int, reads)), write))
            depends.add(write)

    written = range(structure.inputs, structure.states)
    is_residual = structure.stack == "residual"
    outputs = np.flatnonzero(out_S) if is_residual else written
    live = {int(s) for s in outputs if s in depends}
    needed = set(live)
    kept = []
    for node in reversed(nodes):
        if node.writes in needed:
            kept.append(node)
            needed.update(node.reads)
    inputs = [s for s in range(structure.inputs) if s in needed]
    return _Cell(tuple(reversed(kept)), tuple(inputs), tuple(sorted(live)))


def _cell_lines(structure: CellStructure, cell: _Cell) -> Iterator[str]:
    """The class of a cell."""
    is_projected = structure.stack == "projected"
    widths = "inputs: tuple[int, ...], " * is_projected
    yield "class Cell(nnx.Module):"
    yield f'    """A cell of {len(cell.nodes)} nodes."""'
    yield ""
    yield f"    def __init__(self, {widths}channels: int, *, rngs: nnx.Rngs):"
    layers = []
    if is_projected:
        layers += [
            f"self.input{i} = ConvNorm(inputs[{i}], channels, (1, 1), rngs=rngs)"
            for i in cell.inputs
        ]
    for node in cell.nodes:
        for op in node.ops:
            made = _op(op).layer
            if made:
                layers.append(f"self.{node.layer(op)} = {made}")
    for line in layers or ["pass"]:
        yield f"        {line}"
    yield ""
    names = [f"x{i}" for i in range(structure.inputs)]
    arguments = ", ".join(f"{name}: jax.Array" for name in names)
    yield f"    def __call__(self, {arguments}) -> jax.Array:"
    for i in cell.inputs:
        made = f"self.input{i}(x{i})" if is_projected else f"x{i}"
        yield f"        s{i} = {made}"
    yield from _state_lines(cell)
    states = [f"s{s}" for s in cell.outputs]
    if is_projected:
        yield f"        return concatenate({', '.join(states)})"
    else:
        yield f"        return {' + '.join(states)}"


def _state_lines(cell: _Cell) -> Iterator[str]:
    """Assignments of the states that nodes write."""
    for state in dict.fromkeys(node.writes for node in cell.nodes):
        terms = []
        for node in cell.nodes:
            if node.writes != state:
                continue
            x = " + ".join(f"s{s}" for s in node.reads)
            terms += [_term(node, op, x) for op in node.ops]
        yield f"        s{state} = {terms[0]}"
        for term in terms[1:]:
            yield f"        s{state} = s{state} + {term}"


def _term(node: _Node, op: str, x: str) -> str:
    """The result of an op of a node."""
    made = _op(op)
    if made.layer:
        return f"self.{node.layer(op)}({x})"
    if made.function:
        return f"{made.function}({x})"
    return f"({x})" if " + " in x else x


def _op(name: str):
    module = OPS[name].module
    assert module is not None
    return module


def _node_weights(
    theta: Params,
    s: int,
    j: int,
    node: _Node,
    weights: dict[str, np.ndarray],
) -> None:
    for op in node.ops:
        own = {k: w[j, node.number] for k, w in theta.get(op, {}).items()}
        for name, array in _op(op).weights(own).items():
            weights[f"stages.{s}.{j}.{node.layer(op)}.{name}"] = array


def _residual(
    config: CellConfig,
    image: ImageShape,
    classes: int,
    theta: Params,
    weights: dict[str, np.ndarray],
) -> list[str]:
    """The class of a network, and the weights of its blocks between stages."""
    channels = [config.channels * 2**s for s in range(STAGES)]
    for s, block in enumerate(theta["reduce"]):
        weights[f"reduce.{s}.a.conv.kernel"] = block["a"]
        weights[f"reduce.{s}.b.conv.kernel"] = block["b"]
        weights[f"reduce.{s}.skip.kernel"] = block["skip"]
    cells = [
        [f"Cell({C}, rngs=rngs)" for _ in range(config.cells)]
        for C in channels
    ]
    reduce = [f"Reduce({C // 2}, {C}, rngs=rngs)," for C in channels[1:]]
    return [
        *_begin(image[2], channels[0], cells),
        "        self.reduce = nnx.List(",
        "            [",
        *(f"                {line}" for line in reduce),
        "            ]",
        "        )",
        f"        self.head = Head({channels[-1]}, {classes}, rngs=rngs)",
        "",
        *_CALL,
        "        x = self.stem(x)",
        "        for s, cells in enumerate(self.stages):",
        "            if s > 0:",
        "                x = self.reduce[s - 1](x)",
        "            for cell in cells:",
        "                x = cell(x)",
        "        return self.head(x)",
    ]


def _projected(
    structure: CellStructure,
    config: CellConfig,
    image: ImageShape,
    classes: int,
    cell: _Cell,
    theta: Params,
    weights: dict[str, np.ndarray],
) -> tuple[list[str], np.ndarray]:
    """The class of a network, and the channels of its last output that are not 0."""
    stem = structure.written * config.channels
    # Which channels of the uncut network each input of a cell has.
    before = [np.arange(stem)] * structure.inputs
    cells = []
    for s in range(STAGES):
        C = config.channels * 2**s
        states = np.array(cell.outputs) - structure.inputs
        live = (states[:, None] * C + np.arange(C)).ravel()
        stage = []
        for j in range(config.cells):
            for i in cell.inputs:
                kernel = theta["project"][s][j, i][before[i]][None, None]
                weights[f"stages.{s}.{j}.input{i}.conv.kernel"] = kernel
            widths = tuple(len(rows) for rows in before)
            stage.append(f"Cell({widths}, {C}, rngs=rngs)")
            before = [live, *before[:-1]]
        cells.append(stage)
    lines = [
        *_begin(image[2], stem, cells),
        f"        self.head = Head({len(before[0])}, {classes}, rngs=rngs)",
        "",
        *_CALL,
        f"        before = (self.stem(x),) * {structure.inputs}",
        "        for s, cells in enumerate(self.stages):",
        "            if s > 0:",
        "                before = tuple(map(halve, before))",
        "            for cell in cells:",
        "                before = (cell(*before), *before[:-1])",
        "        return self.head(before[0])",
    ]
    return lines, before[0]


_CALL = [
    "    def __call__(self, x: jax.Array) -> jax.Array:",
    '        """Returns logits_BxL for normalised images x_BxHxWxC."""',
]


def _begin(inputs: int, stem: int, cells: list[list[str]]) -> list[str]:
    """The beginning of the class of a network."""
    listed = []
    for stage in cells:
        listed.append("                nnx.List(")
        listed.append("                    [")
        listed += [f"                        {made}," for made in stage]
        listed.append("                    ]")
        listed.append("                ),")
    return [
        "class Network(nnx.Module):",
        f'    """{STAGES} stages of {len(cells[0])} cells."""',
        "",
        "    def __init__(self, *, rngs: nnx.Rngs):",
        "        self.stem = ConvNorm(",
        f"            {inputs}, {stem}, (3, 3), relu=False, rngs=rngs",
        "        )",
        "        self.stages = nnx.List(",
        "            [",
        *listed,
        "            ]",
        "        )",
    ]
