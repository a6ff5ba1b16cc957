"""NAS-Bench-101's networks as Flax NNX source, each vertex with its own channels."""

from collections.abc import Iterator

import numpy as np

from jaxhypernas.archs.cells import STAGES
from jaxhypernas.archs.nasbench101 import (
    MAX_INTERIOR,
    Nasbench101Arch,
    prune,
    vertex_channels,
)
from jaxhypernas.archs.sizes import Nasbench101Config
from jaxhypernas.types import ImageShape, Module, Params, UserError

BEGIN = '''def fit(x: jax.Array, channels: int) -> jax.Array:
    """Cuts channels, or adds channels of zeros."""
    missing = max(channels - x.shape[-1], 0)
    around = ((0, 0), (0, 0), (0, 0), (0, missing))
    return jnp.pad(x[..., :channels], around)


class Cell(nnx.Module):
    """A cell; each of its interior vertices has channels of its own."""

    def __init__(
        self,
        inputs: int,
        widths: tuple[int, ...],
        channels: int,
        *,
        rngs: nnx.Rngs,
    ):
        def conv(inputs, outputs, size):
            return ConvNorm(
                inputs, outputs, (size, size), relu=False, rngs=rngs
            )

        self.widths = widths'''
"""The lines that are the same for all cells."""

_POOL = 3
"""Number of the op without weights."""


def nasbench101_module(
    config: Nasbench101Config,
    image: ImageShape,
    classes: int,
    arch: Nasbench101Arch,
    theta: Params,
) -> Module:
    """Writes the network of one cell.

    Args:
        config: Sizes of the networks.
        image: Height, width and channels of an image.
        classes: Number of classes.
        arch: The cell.
        theta: Its weights, as in `targets.nasbench101`; arrays of NumPy.

    Raises:
        UserError: No path leads from the input of the cell to its output.
    """
    arch = prune(Nasbench101Arch(*map(np.asarray, arch)))
    if not arch.edge_VxV.any():
        raise UserError(
            "arch: no path leads from the input to the output of this cell"
        )
    weights = {
        "stem.conv.kernel": theta["stem"],
        "head.kernel": theta["head"],
        "head.bias": theta["bias"],
    }
    cells = []
    inputs = config.channels
    for s in range(STAGES):
        channels = config.channels * 2**s
        channel_N = np.asarray(vertex_channels(arch.edge_VxV, channels))
        stage = []
        for j in range(config.cells):
            own = {k: w[j] for k, w in theta["cells"][s].items()}
            place = f"stages.{s}.{j}"
            for name, array in _weights(arch, inputs, channel_N, own):
                weights[f"{place}.{name}"] = array
            listed = ", ".join(map(str, channel_N))
            stage.append(f"Cell({inputs}, ({listed}), {channels}, rngs=rngs)")
            inputs = channels
        cells.append(stage)
    lines = [
        *_cell_lines(arch),
        "",
        "",
        *_network_lines(config, image, classes, cells),
        "",
    ]
    return Module("\n".join(lines), weights)


def _vertices(arch: Nasbench101Arch, channel_N: np.ndarray) -> list[int]:
    """Interior vertices with channels."""
    there_N = (arch.op_N > 0) & (channel_N > 0)
    return [int(n) for n in np.flatnonzero(there_N)]


def _weights(
    arch: Nasbench101Arch,
    inputs: int,
    channel_N: np.ndarray,
    theta: Params,
) -> Iterator[tuple[str, np.ndarray]]:
    """The weights of a cell, by name."""
    names = {1: "conv3x3", 2: "conv1x1"}
    for n in _vertices(arch, channel_N):
        c = channel_N[n]
        name = names.get(int(arch.op_N[n]))
        if name is not None:
            kernel = theta[name][n][..., :c, :c]
            kernel = kernel if kernel.ndim == 4 else kernel[None, None]
            yield f"vertex{n}.conv.kernel", kernel
        if arch.edge_VxV[0, n + 1]:
            kernel = theta["project"][n][None, None, :inputs, :c]
            yield f"project{n}.conv.kernel", kernel
    if arch.edge_VxV[0, -1]:
        kernel = theta["project"][MAX_INTERIOR][None, None, :inputs]
        yield "project.conv.kernel", kernel


def _cell_lines(arch: Nasbench101Arch) -> Iterator[str]:
    """The class of a cell."""
    # A vertex without channels in a narrow network has a layer of none.
    vertices = [int(n) for n in np.flatnonzero(arch.op_N)]
    yield BEGIN
    for n in vertices:
        if arch.edge_VxV[0, n + 1]:
            yield f"        self.project{n} = conv(inputs, widths[{n}], 1)"
        if arch.op_N[n] != _POOL:
            size = {1: 3, 2: 1}[int(arch.op_N[n])]
            yield (
                f"        self.vertex{n} = conv(widths[{n}], widths[{n}], {size})"
            )
    if arch.edge_VxV[0, -1]:
        yield "        self.project = conv(inputs, channels, 1)"
    yield ""
    yield from _call_lines(arch, vertices)


def _call_lines(arch: Nasbench101Arch, vertices: list[int]) -> Iterator[str]:
    """What a cell computes."""
    yield "    def __call__(self, x: jax.Array) -> jax.Array:"
    for n in vertices:
        terms = [
            f"fit(v{m}, self.widths[{n}])"
            for m in vertices
            if arch.edge_VxV[m + 1, n + 1]
        ]
        if arch.edge_VxV[0, n + 1]:
            terms.append(f"jax.nn.relu(self.project{n}(x))")
        yield f"        v{n} = {terms[0]}"
        for term in terms[1:]:
            yield f"        v{n} = v{n} + {term}"
        if arch.op_N[n] == _POOL:
            yield f"        v{n} = max_pool_3x3(v{n})"
        else:
            yield f"        v{n} = jax.nn.relu(self.vertex{n}(v{n}))"
    outputs = [f"v{n}" for n in vertices if arch.edge_VxV[n + 1, -1]]
    if outputs:
        yield f"        y = concatenate({', '.join(outputs)})"
    if arch.edge_VxV[0, -1]:
        before = "y + " if outputs else ""
        yield f"        y = {before}jax.nn.relu(self.project(x))"
    yield "        return y"


def _network_lines(
    config: Nasbench101Config,
    image: ImageShape,
    classes: int,
    cells: list[list[str]],
) -> Iterator[str]:
    """The class of a network."""
    last = config.channels * 2 ** (STAGES - 1)
    yield "class Network(nnx.Module):"
    yield f'    """{STAGES} stages of {config.cells} cells."""'
    yield ""
    yield "    def __init__(self, *, rngs: nnx.Rngs):"
    yield "        self.stem = ConvNorm("
    yield f"            {image[2]}, {config.channels}, (3, 3), relu=False, rngs=rngs"
    yield "        )"
    yield "        self.stages = nnx.List()"
    for stage in cells:
        yield "        self.stages.append("
        yield "            nnx.List("
        yield "                ["
        for made in stage:
            yield f"                    {made},"
        yield "                ]"
        yield "            )"
        yield "        )"
    yield f"        self.head = nnx.Linear({last}, {classes}, rngs=rngs)"
    yield ""
    yield "    def __call__(self, x: jax.Array) -> jax.Array:"
    yield '        """Returns logits_BxL for normalised images x_BxHxWxC."""'
    yield "        x = jax.nn.relu(self.stem(x))"
    yield "        for s, cells in enumerate(self.stages):"
    yield "            if s > 0:"
    yield "                x = nnx.max_pool(x, (2, 2), (2, 2))"
    yield "            for cell in cells:"
    yield "                x = cell(x)"
    yield "        return self.head(x.mean((1, 2)))"
