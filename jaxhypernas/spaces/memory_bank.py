"""SMASH's search space (Brock et al. 2018, section 3.1): graphs and counts of networks.

`archs.memory_bank` describes the arrays.
"""

import math
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from jaxhypernas.archs.memory_bank import (
    BLOCKS,
    CONVS,
    OP_SETS,
    Layout,
    MemoryBankArch,
    active_convs,
    layout,
)
from jaxhypernas.archs.sizes import MemoryBankConfig
from jaxhypernas.spaces.memory_bank_sampling import canonical, mutate, sample
from jaxhypernas.spaces.memory_bank_text import from_string, to_string
from jaxhypernas.types import Array, Cost, Graph, ImageShape, Space, UserError

NODE_OPS = (
    "input",
    "transition",
    "output",
    "1000",
    "1010",
    "1100",
    "1110",
    "1111",
)
"""Names of the graph's op indices: the rows of OP_SETS come last."""


def memory_bank(
    config: MemoryBankConfig, image: ImageShape, classes: int
) -> Space:
    """SMASH's space.

    ``log10_size`` is an upper bound: it counts every read and write set of every slot.

    Args:
        config: The sizes of the networks.
        image: Height, width and channels of the images.
        classes: Number of classes.

    Returns:
        The space, without an encoding for SMASH's hypernetwork.

    Raises:
        UserError: The images are too small to be halved twice.

    Example::

        space = memory_bank(MemoryBankConfig(), (32, 32, 3), 10)
        arch = space.sample(jax.random.key(0), 1.0)
    """
    config = config.of_images(image)
    if min(block_sizes(config, image)[-1]) < 1:
        raise UserError(
            f"space: images of {image[0]}x{image[1]} are too small for three "
            "blocks: at least 4x4 after the stem"
        )

    # log10 of the number of choices: settings of the four convolutions, then an op.
    settings = math.log10(len(config.group_choices)) + 2 * math.log10(6)
    op = (
        2 * config.max_banks * math.log10(2)
        + math.log10(config.units * len(OP_SETS))
        + CONVS * settings
    )
    return Space(
        name="memory_bank",
        sample=partial(sample, config),
        mutate=partial(mutate, config),
        canonical=canonical,
        graph=partial(_graph, config),
        cost=partial(_cost, config, image, classes),
        depth=_depth,
        to_string=to_string,
        from_string=partial(from_string, config),
        log10_size=BLOCKS * (math.log10(config.units) + config.slots * op),
        op_names=tuple(map(_drawn, NODE_OPS)),
    )


def _drawn(op: str) -> str:
    """Names the convolutions that an op has, from its name in NODE_OPS."""
    there = [str(i) for i, bit in enumerate(op) if bit == "1"]
    return "conv " + ", ".join(there) if there else op


def block_sizes(
    config: MemoryBankConfig, image: ImageShape
) -> list[tuple[int, int]]:
    """Resolutions of the activations.

    Args:
        config: The sizes of the networks.
        image: Height, width and channels of the images.

    Returns:
        Height and width in each block.
    """
    height, width = (-(-n // config.stem_stride) for n in image[:2])
    return [(height // 2**b, width // 2**b) for b in range(BLOCKS)]


def _depth(arch: MemoryBankArch) -> np.ndarray:
    """No op: a block's output is its memory, which its input is part of."""
    return np.zeros(np.shape(arch.bank_3)[:-1])


def _graph(config: MemoryBankConfig, arch: MemoryBankArch) -> Graph:
    """The network as a padded graph.

    Nodes are each block's input and P op slots, then the output; ops are NODE_OPS. An
    op has an edge from every earlier op (or the block's input) that wrote one of the
    banks it reads.
    """
    exists_3xP = (arch.width_3xP > 0).astype(jnp.int32)
    exists_3xQ = jnp.concatenate(
        [jnp.ones((BLOCKS, 1), jnp.int32), exists_3xP], 1
    )
    feeds_3xQxQ = _edges_of_blocks(config, arch)
    Q = exists_3xQ.shape[1]
    N = BLOCKS * Q + 1

    edge_NxN = jnp.zeros((N, N), jnp.int32)
    for b in range(BLOCKS):
        rows = slice(b * Q, (b + 1) * Q)
        edge_NxN = edge_NxN.at[rows, rows].set(feeds_3xQxQ[b])
        # The next block's input, or the output, takes the whole memory.
        edge_NxN = edge_NxN.at[(b + 1) * Q, rows].set(exists_3xQ[b])

    input_3x1 = jnp.array([[0], [1], [1]], jnp.int32)
    op_3xP = jnp.where(arch.width_3xP > 0, 3 + arch.op_3xP, 0)
    op_3xQ = jnp.concatenate([input_3x1, op_3xP], 1)
    one = jnp.ones(1, jnp.int32)
    op_N = jnp.append(op_3xQ.ravel(), 2 * one)
    mask_N = jnp.append(exists_3xQ.ravel(), one)
    op_NxO = jax.nn.one_hot(op_N, len(NODE_OPS), dtype=jnp.int32)
    return Graph(op_NxO * mask_N[:, None], edge_NxN, mask_N)


def _edges_of_blocks(
    config: MemoryBankConfig, arch: MemoryBankArch
) -> jax.Array:
    """1 where a node of a block feeds another, [3, Q, Q]; node 0 is the input."""
    filled_3 = layout(config, arch).filled_3 // arch.bank_3
    index_M = jnp.arange(config.max_banks)
    input_write_3xM = (index_M[None, :] < filled_3[:, None]).astype(jnp.int32)
    input_write_3x1xM = input_write_3xM[:, None]
    write_3xQxM = jnp.concatenate([input_write_3x1xM, arch.write_3xPxM], 1)
    read_3xQxM = jnp.concatenate(
        [jnp.zeros_like(input_write_3x1xM), arch.read_3xPxM], 1
    )
    shared_3xQxQ = jnp.einsum("bim,bjm->bij", read_3xQxM, write_3xQxM)
    return jnp.tril((shared_3xQxQ > 0).astype(jnp.int32), -1)


def _cost(
    config: MemoryBankConfig,
    image: ImageShape,
    classes: int,
    arch: MemoryBankArch,
) -> Cost:
    """Exact counts of one architecture, or of a population (any leading axes).

    Only those channels of the stem and of transitions are dead that do not fill a
    whole bank: every op reads written banks, and the whole memory is read at a block's
    end.
    """
    # Counts of large networks need 64 bits.
    arch = MemoryBankArch(*(np.asarray(x, np.int64) for x in arch))
    place = layout(config, arch)
    unit = config.unit
    area_3 = np.array([h * w for h, w in block_sizes(config, image)], np.int64)
    ops_3 = _op_params(config, arch, place)
    ops = ops_3.sum(-1)
    ops_flops = np.asarray((ops_3 * area_3).sum(-1))

    def total(in_units_3):
        """Weights and multiply-adds where blocks' inputs have so many units."""
        stem = config.stem_kernel**2 * image[2] * in_units_3[..., 0] * unit
        # Transitions pool before their 1x1.
        transitions_2 = place.memory_3[..., :2] * in_units_3[..., 1:] * unit**2
        head = place.memory_3[..., 2] * unit * classes
        params = ops + stem + transitions_2.sum(-1) + head + classes

        transition_flops = (transitions_2 * area_3[1:]).sum(-1)
        flops = ops_flops + stem * area_3[0] + transition_flops + head
        return params, flops

    all_units = np.broadcast_to(np.array(config.in_units), arch.bank_3.shape)
    params, flops = total(all_units)
    live_params, live_flops = total(place.filled_3)
    return Cost(params, flops, live_params, live_flops, ops_flops)


def _op_params(
    config: MemoryBankConfig, arch: MemoryBankArch, place: Layout
) -> Array:
    """Weights of all ops of each block, [..., 3]."""
    unit = config.unit
    # Convolutions 0 and 2 take the output of the 1x1, 1 and 3 that of another.
    inputs = np.stack([place.units_out_3xP, arch.width_3xP] * 2, -1) * unit
    outputs = arch.width_3xP[..., None] * unit
    area = arch.kernel_3xPx4x2.prod(-1)
    convs = active_convs(arch) * area * inputs * outputs // arch.groups_3xPx4
    one_by_one = place.units_in_3xP * place.units_out_3xP * unit**2
    return (one_by_one + convs.sum(-1)).sum(-1)
