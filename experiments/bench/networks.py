"""NAS-Bench-201's networks as a user of JAX without this library would write them: `lax.switch` under `jax.vmap`, XLA's
convolutions, automatic differentiation.

The same function of the same weights as `jaxhypernas.targets.cell_network`: stem, three stages of cells, residual
reductions, head; BatchNorm by the statistics of the batch.
"""

from functools import partial

import jax
import jax.numpy as jnp
from jax import lax

from jaxhypernas.spaces.nasbench201 import EDGES


def _conv(x, w, stride=1):
    pad = [(k // 2,) * 2 for k in w.shape[:2]]
    return lax.conv_general_dilated(
        x, w, (stride, stride), pad, dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


def _norm(x):
    mean, var = (
        x.mean((0, 1, 2), keepdims=True),
        x.var((0, 1, 2), keepdims=True),
    )
    return (x - mean) * lax.rsqrt(var + 1e-5)


def _window_mean(x):
    sums = partial(
        lax.reduce_window,
        init_value=0.0,
        computation=lax.add,
        window_dimensions=(1, 3, 3, 1),
        window_strides=(1, 1, 1, 1),
        padding="SAME",
    )
    return sums(x) / sums(jnp.ones((1, *x.shape[1:3], 1)))


def _branches(w, edge):
    return (
        jnp.zeros_like,
        lambda x: x,
        lambda x: _norm(
            _conv(jax.nn.relu(x), w["nor_conv_1x1"]["conv0"][edge])
        ),
        lambda x: _norm(
            _conv(jax.nn.relu(x), w["nor_conv_3x3"]["conv0"][edge])
        ),
        _window_mean,
    )


def jax_network(theta, choice_6, x_BxHxWxC: jax.Array) -> jax.Array:
    """Logits; ``choice_6``, indices into EDGE_OPS of the space: an array, or a tuple to compile one architecture alone."""
    alone = isinstance(choice_6, tuple)
    x = _norm(_conv(x_BxHxWxC, theta["stem"]))
    for s, cells in enumerate(theta["cells"]):
        if s > 0:
            w = theta["reduce"][s - 1]
            y = _norm(_conv(jax.nn.relu(x), w["a"], 2))
            y = _norm(_conv(jax.nn.relu(y), w["b"]))
            B, H, W, C = x.shape
            x = y + _conv(
                x.reshape(B, H // 2, 2, W // 2, 2, C).mean((2, 4)),
                w["skip"][None, None],
            )
        for n in range(jax.tree.leaves(cells)[0].shape[0]):
            w = jax.tree.map(lambda v, n=n: v[n], cells)
            states = [x]
            for to in (1, 2, 3):
                state = jnp.zeros_like(x)
                for edge, (end, start) in enumerate(EDGES):
                    if end == to and alone:
                        state += _branches(w, edge)[choice_6[edge]](
                            states[start]
                        )
                    elif end == to:
                        state += lax.switch(
                            choice_6[edge], _branches(w, edge), states[start]
                        )
                states.append(state)
            x = states[3]
    return (
        jax.nn.relu(_norm(x)).mean((1, 2)) @ theta["head"] + theta["bias"][None]
    )
