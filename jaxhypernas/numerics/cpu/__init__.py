"""Layers and cells of target networks as C++, for CPU. XLA calls them.

CPU is a tier-one platform here: a whole search runs on two cores in minutes. XLA runs a
cell as many small operations, each of which reads and writes whole activations. In C++
a node's ReLU, convolution and BatchNorm pass over an image while it is in cache, and
only the ops that a node applies are computed. That halves the time of training and
scoring (experiments/LOG.md, "Candidate execution").

The results equal those of `targets.cell_forms.branching` and
`numerics.normalisation.conv_norm` to rounding, in float32 and float64. Each call runs
on one core. The C++ is compiled when it first runs and needs a compiler, ``c++`` or the
one that ``CXX`` names; where there is none, `available` returns False and networks run
in another form.
"""

from jaxhypernas.numerics.cpu.cells import (
    AVERAGE_POOL,
    MAX_POOL,
    SKIP,
    Layer,
    NativeCell,
    NativeOp,
    cell_states,
    layers,
)
from jaxhypernas.numerics.cpu.layer import conv_norm
from jaxhypernas.numerics.cpu.library import available

__all__ = [
    "AVERAGE_POOL",
    "MAX_POOL",
    "SKIP",
    "Layer",
    "NativeCell",
    "NativeOp",
    "available",
    "cell_states",
    "conv_norm",
    "layers",
]
