"""Cases of the tests of cells: tiny sizes, random and special architectures."""

import dataclasses
from functools import cache

import jax
import numpy as np
from helpers import row

from jaxhypernas.archs.population import rows
from jaxhypernas.archs.sizes import (
    GhnCellConfig,
    Nasbench201Config,
    OneShotConfig,
    PnasConfig,
)
from jaxhypernas.families import FAMILIES
from jaxhypernas.spaces.nasbench201 import choices

IMAGE = (8, 8, 3)
CLASSES = 5
DRAWN = 300

SIZES = {
    "nasbench201": Nasbench201Config(channels=4, cells=2),
    "ghn": GhnCellConfig(channels=4, cells=1, nodes=4),
    "pnas": PnasConfig(channels=4, cells=2),
    "one_shot": OneShotConfig(channels=4, cells=1),
}
CELL_SPACES = list(SIZES)
NODES = {"nasbench201": 6, "ghn": 4, "pnas": 10, "one_shot": 4}


def build(name, image, classes, **sizes):
    """The space and its target, with other sizes."""
    config = dataclasses.replace(SIZES[name], **sizes)
    return FAMILIES[name].build(config, image, classes)


@cache
def parts(name):
    """The space, the target, and jitted sampling and mutation of populations."""
    space, target = build(name, IMAGE, CLASSES)
    sample = jax.jit(jax.vmap(lambda key: space.sample(key, 1.0)))
    return space, target, sample, jax.jit(jax.vmap(space.mutate))


def keys(seed, number=DRAWN):
    return jax.random.split(jax.random.key(seed), number)


@cache
def drawn(name, seed=0):
    return jax.tree.map(np.asarray, parts(name)[2](keys(seed)))


def texts_of(name, archs):
    space = parts(name)[0]
    return [space.to_string(row(archs, i)) for i in range(len(archs.out_S))]


def choice_numbers(archs):
    return np.asarray(choices(archs)) @ 5 ** np.arange(6)[::-1]


# Beside random architectures: absent nodes, nodes on no path, several ops and reads.
SPECIAL = {
    "nasbench201": [
        "|none~0|+|nor_conv_3x3~0|nor_conv_1x1~1|+|none~0|avg_pool_3x3~1|skip_connect~2|",
        "|nor_conv_1x1~0|+|none~0|none~1|+|none~0|none~1|nor_conv_3x3~2|",
    ],
    "ghn": [
        "nor_conv_1x1(0);-;sep_conv_3x3(0,1);dil_conv_5x5(1)",
        "sep_conv_5x5(0);dil_conv_3x3(0,1);max_pool_3x3(1,2);avg_pool_3x3(2)",
    ],
    "pnas": [
        "sep_conv_3x3(0);skip_connect(1);-;-;-;-;dil_conv_3x3(2);conv_1x7_7x1(0);-;-"
    ],
    "one_shot": [
        "skip_connect+sep_conv_7x7(0,1);-;max_pool_3x3+conv_1x7_7x1(1,2);avg_pool_3x3(1)"
    ],
}


def chosen(name):
    """Two random architectures and the special ones."""
    return [*texts_of(name, rows(drawn(name), slice(0, 2))), *SPECIAL[name]]
