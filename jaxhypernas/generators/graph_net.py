"""Gated message passing over an architecture's graph (Zhang, Ren, Urtasun 2019)."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import lax

from jaxhypernas.generators.configs import GhnConfig
from jaxhypernas.types import Graph


class GraphNet(nnx.Module):
    """Maps graphs to node states.

    Parameters, with O ops and D hidden units: ``embed`` [O, D]; ``message`` and
    ``virtual`` (messages over virtual edges), two layers [D, D]; ``gru``, a cell from
    [D] and [D] to [D]; ``norm`` [D]. ``virtual`` and ``norm`` are None where the
    configuration does not ask for them.

    Args:
        ops: Number of ops of a graph's nodes, O.
        config: The size of the hypernetwork.
        rngs: Random keys; stream ``params`` is used.
    """

    def __init__(self, ops: int, config: GhnConfig, rngs: nnx.Rngs):
        D = config.hidden
        self.config = config
        self.embed = nnx.Linear(ops, D, use_bias=False, rngs=rngs)
        self.message = _two_layers(D, rngs)
        self.virtual = _two_layers(D, rngs) if config.virtual_edges else None
        self.gru = nnx.GRUCell(D, D, rngs=rngs)
        self.norm = nnx.LayerNorm(D, rngs=rngs) if config.layer_norm else None

    def __call__(self, graph: Graph, cells: int) -> jax.Array:
        """Computes the states of all nodes of a stack of equal cells.

        Args:
            graph: The graph of one cell.
            cells: Number of stacked cells, K. The mean state of a cell is a message to
                the first node of the next.

        Returns:
            The states h_KxNxD, 0 for absent nodes (before ``norm``).
        """
        chex.assert_rank(
            [graph.op_NxO, graph.edge_NxN, graph.mask_N], [2, 2, 1]
        )
        start_NxD = self.embed(graph.op_NxO.astype(jnp.float32))
        near_NxN, far_NxN = _edge_weights(
            graph.edge_NxN, self.config.virtual_edges
        )
        mask_N = graph.mask_N.astype(jnp.float32)
        nodes = graph.mask_N.sum().astype(jnp.float32)
        run = self._synchronous if self.config.synchronous else self._in_order

        def cell(before_D, _):
            h_NxD = run(start_NxD, near_NxN, far_NxN, mask_N, before_D)
            return h_NxD.sum(0) / nodes, h_NxD

        no_cell_D = jnp.zeros(start_NxD.shape[1])
        _, h_KxNxD = lax.scan(cell, no_cell_D, None, length=cells)
        return h_KxNxD if self.norm is None else self.norm(h_KxNxD)

    def _messages(self, h: jax.Array) -> jax.Array:
        """Messages to neighbours and, side by side, over virtual edges."""
        messages = self.message(h)
        if self.virtual is None:
            return messages
        return jnp.concatenate([messages, self.virtual(h)], -1)

    def _received(
        self, near: jax.Array, far: jax.Array, messages: jax.Array
    ) -> jax.Array:
        """Sums of messages, weighted by the edges to neighbours and virtual edges."""
        D = self.config.hidden
        received = near @ messages[:, :D]
        if self.virtual is None:
            return received
        return received + far @ messages[:, D:]

    def _synchronous(
        self,
        h_NxD: jax.Array,
        near_NxN: jax.Array,
        far_NxN: jax.Array,
        mask_N: jax.Array,
        before_D: jax.Array,
    ) -> jax.Array:
        """States after all passes; a pass updates all nodes at once."""
        near_both_NxN = near_NxN + near_NxN.T
        far_both_NxN = far_NxN + far_NxN.T

        def step(h_NxD, _):
            messages = self._messages(h_NxD)
            m_NxD = self._received(near_both_NxN, far_both_NxN, messages)
            m_NxD = m_NxD.at[0].add(before_D)
            return self.gru(h_NxD, m_NxD)[0] * mask_N[:, None], None

        return lax.scan(step, h_NxD, None, length=self.config.passes)[0]

    def _in_order(
        self,
        h_NxD: jax.Array,
        near_NxN: jax.Array,
        far_NxN: jax.Array,
        mask_N: jax.Array,
        before_D: jax.Array,
    ) -> jax.Array:
        """States after all passes; a pass visits nodes in order, then in reverse."""
        N = len(mask_N)
        last = jnp.where(mask_N > 0, jnp.arange(N), 0).max()

        def visit(carry, at):
            h_NxD, messages = carry
            v, forward = at
            near_N = jnp.where(forward, near_NxN[v], near_NxN[:, v])
            far_N = jnp.where(forward, far_NxN[v], far_NxN[:, v])
            from_before_D = jnp.where(v == 0, before_D, 0)
            m_D = self._received(near_N, far_N, messages) + from_before_D
            h_D = self.gru(h_NxD[v], m_D)[0] * mask_N[v]
            message = self._messages(h_D) * mask_N[v]

            # The last node, where the direction turns, is visited once.
            visited = forward | (v != last)
            h_D = jnp.where(visited, h_D, h_NxD[v])
            message = jnp.where(visited, message, messages[v])
            return (h_NxD.at[v].set(h_D), messages.at[v].set(message)), None

        # One scan over the visits of all passes: the body is compiled once.
        nodes = np.arange(N)
        order = np.concatenate([nodes, nodes[::-1]])
        forward = np.arange(2 * N) < N
        passes = self.config.passes
        visits = (
            jnp.asarray(np.tile(order, passes)),
            jnp.asarray(np.tile(forward, passes)),
        )
        messages = self._messages(h_NxD) * mask_N[:, None]
        return lax.scan(visit, (h_NxD, messages), visits)[0][0]


def _two_layers(hidden: int, rngs: nnx.Rngs) -> nnx.Sequential:
    return nnx.Sequential(
        nnx.Linear(hidden, hidden, rngs=rngs),
        jax.nn.relu,
        nnx.Linear(hidden, hidden, rngs=rngs),
    )


def _edge_weights(
    edge_NxN: jax.Array, cutoff: int
) -> tuple[jax.Array, jax.Array]:
    """Weights of messages from neighbours, and over virtual edges.

    A virtual edge stands for a shortest path of s edges, 1 < s <= cutoff; its weight is
    1 / s.
    """
    near_NxN = edge_NxN.astype(jnp.float32)

    def add_paths(s, carry):
        # Nodes reached in fewer than s edges, and the weights of their paths.
        reached, far = carry
        within = (near_NxN @ reached > 0) | (reached > 0)
        new = within.astype(jnp.float32) - reached
        return reached + new, far + new / s.astype(jnp.float32)

    reached_NxN = jnp.eye(edge_NxN.shape[0]) + near_NxN
    start = (reached_NxN, jnp.zeros_like(near_NxN))
    _, far_NxN = lax.fori_loop(2, cutoff + 1, add_paths, start)
    return near_NxN, far_NxN
