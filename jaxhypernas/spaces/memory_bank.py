"""SMASH's search space (Brock et al. 2018, section 3.1): its arrays are described in `memory_bank_arch`."""

import math
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from jaxhypernas.archs.memory_bank import (
    BLOCKS,
    CONVS,
    MemoryBankArch,
    MemoryBankConfig,
    active_convs,
    canonical,
    layout,
    mutate,
    sample,
)
from jaxhypernas.spaces.memory_bank_text import from_string, to_string
from jaxhypernas.types import Cost, Graph, Space, UserError

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
"""Names of the graph's op indices."""


def memory_bank(
    config: MemoryBankConfig, image: tuple[int, int, int], classes: int
) -> Space:
    """SMASH's space for images of shape (H, W, C).

    ``log10_size`` is an upper bound: it counts every read and write set of every slot.

    Raises:
        UserError: the images are too small to be halved twice.
    """
    if min(block_sizes(config, image)[-1]) < 1:
        raise UserError(
            f"space: images of {image[0]}x{image[1]} are too small for three blocks: at least 4x4 after the stem"
        )
    settings = 4 * (math.log10(len(config.group_choices)) + 2 * math.log10(6))
    op = (
        2 * config.max_banks * math.log10(2)
        + math.log10(config.units * 5)
        + settings
    )
    return Space(
        name="memory_bank",
        sample=partial(sample, config),
        mutate=partial(mutate, config),
        canonical=canonical,
        graph=partial(graph, config),
        cost=partial(cost, config, image, classes),
        to_string=to_string,
        from_string=partial(from_string, config),
        log10_size=BLOCKS * (math.log10(config.units) + config.slots * op),
    )


def block_sizes(
    config: MemoryBankConfig, image: tuple[int, int, int]
) -> list[tuple[int, int]]:
    """Height and width of the activations in each block."""
    height, width = (-(-n // config.stem_stride) for n in image[:2])
    return [(height // 2**b, width // 2**b) for b in range(BLOCKS)]


def graph(config: MemoryBankConfig, arch: MemoryBankArch) -> Graph:
    """The network as a padded graph: per block its input and P op slots, then the output; ops are those of NODE_OPS.

    An op has an edge from every earlier op (or the block's input) that wrote one of the banks it reads.
    """
    P, M = arch.width_3xP.shape[1], config.max_banks
    filled_3 = layout(config, arch).filled_3 // arch.bank_3
    input_write_3x1xM = (jnp.arange(M)[None, :] < filled_3[:, None]).astype(
        jnp.int32
    )[:, None]
    write_3xQxM = jnp.concatenate([input_write_3x1xM, arch.write_3xPxM], 1)
    read_3xQxM = jnp.concatenate(
        [jnp.zeros_like(input_write_3x1xM), arch.read_3xPxM], 1
    )
    feeds_3xQxQ = (
        jnp.einsum("bim,bjm->bij", read_3xQxM, write_3xQxM) > 0
    ).astype(jnp.int32)
    feeds_3xQxQ = jnp.tril(feeds_3xQxQ, -1)
    exists_3xQ = jnp.concatenate(
        [
            jnp.ones((BLOCKS, 1), jnp.int32),
            (arch.width_3xP > 0).astype(jnp.int32),
        ],
        1,
    )
    Q, N = P + 1, BLOCKS * (P + 1) + 1
    edge_NxN = jnp.zeros((N, N), jnp.int32)
    for b in range(BLOCKS):
        rows = slice(b * Q, (b + 1) * Q)
        edge_NxN = edge_NxN.at[rows, rows].set(feeds_3xQxQ[b])
        edge_NxN = edge_NxN.at[(b + 1) * Q, rows].set(
            exists_3xQ[b]
        )  # the next input, or the output, takes all memory
    kinds_3x1 = jnp.array([[0], [1], [1]], jnp.int32)
    op_3xQ = jnp.concatenate(
        [kinds_3x1, jnp.where(arch.width_3xP > 0, 3 + arch.op_3xP, 0)], 1
    )
    one = jnp.ones(1, jnp.int32)
    op_N, mask_N = (
        jnp.append(op_3xQ.ravel(), 2 * one),
        jnp.append(exists_3xQ.ravel(), one),
    )
    return Graph(
        jax.nn.one_hot(op_N, len(NODE_OPS), dtype=jnp.int32) * mask_N[:, None],
        edge_NxN,
        mask_N,
    )


def cost(
    config: MemoryBankConfig,
    image: tuple[int, int, int],
    classes: int,
    arch: MemoryBankArch,
) -> Cost:
    """Exact counts of one architecture, or of a population (any leading axes).

    Dead are only the channels of the stem and of transitions that don't fill a whole bank: every op reads written
    banks, and the whole memory is read at a block's end.
    """
    arch = MemoryBankArch(*(np.asarray(x, np.int64) for x in arch))
    place, unit = layout(config, arch), config.unit
    area_3 = np.array([h * w for h, w in block_sizes(config, image)], np.int64)
    conv_in = (
        np.stack([place.units_out_3xP, arch.width_3xP] * 2, -1)[..., :CONVS]
        * unit
    )
    conv_out = arch.width_3xP[..., None] * unit
    convs = (
        active_convs(arch)
        * arch.kernel_3xPx4x2.prod(-1)
        * conv_in
        * conv_out
        // arch.groups_3xPx4
    )
    ops_3 = (
        place.units_in_3xP * place.units_out_3xP * unit**2 + convs.sum(-1)
    ).sum(-1)
    ops, ops_flops = ops_3.sum(-1), (ops_3 * area_3).sum(-1)

    def total(units_3):
        """Stem, transitions (after pooling) and head, where a block's input has so many units."""
        stem = config.stem_kernel**2 * image[2] * units_3[..., 0] * unit
        transitions_2 = place.memory_3[..., :2] * units_3[..., 1:] * unit**2
        head = place.memory_3[..., 2] * unit * classes
        params = ops + stem + transitions_2.sum(-1) + head + classes
        return params, ops_flops + stem * area_3[0] + (
            transitions_2 * area_3[1:]
        ).sum(-1) + head

    all_units = np.broadcast_to(np.array(config.in_units), arch.bank_3.shape)
    return Cost(*total(all_units), *total(place.filled_3))
