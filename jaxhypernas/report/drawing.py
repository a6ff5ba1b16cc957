"""Architectures as drawings, in the language of Mermaid."""

from collections.abc import Sequence

import numpy as np

from jaxhypernas.types import Graph


def mermaid(graph: Graph, names: Sequence[str]) -> str:
    """Draws an architecture as a flowchart of Mermaid, which viewers of Markdown show.

    Nodes that lie on no path from an input to the output are left out.

    Args:
        graph: The graph of one architecture. Its inputs have the op of index 0; its
            last node is the output.
        names: Names of the ops, as `Space.op_names`; may be empty.

    Returns:
        The lines of the flowchart.
    """
    op_NxO = np.asarray(graph.op_NxO)
    edge_NxN = np.asarray(graph.edge_NxN) > 0
    drawn_N = _on_paths(edge_NxN, op_NxO[:, 0] > 0)
    inputs = np.flatnonzero(op_NxO[:, 0] > 0).tolist()
    lines = ["flowchart TD"]
    for node in np.flatnonzero(drawn_N).tolist():
        ops = np.flatnonzero(op_NxO[node]).tolist()
        label = " + ".join(names[op] if names else f"op {op}" for op in ops)
        if len(inputs) > 1 and node in inputs:
            label += f" {inputs.index(node)}"
        lines.append(f'    n{node}["{label}"]')
    both_NxN = edge_NxN & drawn_N[:, None] & drawn_N[None, :]
    lines += [f"    n{j} --> n{i}" for i, j in np.argwhere(both_NxN)]
    return "\n".join(lines)


def _on_paths(edge_NxN: np.ndarray, is_input_N: np.ndarray) -> np.ndarray:
    """Marks each node on a path from an input to the last node.

    Nodes are in topological order.
    """
    reached_N = is_input_N.copy()
    leads_N = np.zeros_like(reached_N)
    leads_N[-1] = True
    for node in range(len(edge_NxN)):
        reached_N[node] |= (edge_NxN[node] & reached_N).any()
    for node in reversed(range(len(edge_NxN))):
        leads_N |= edge_NxN[node] & leads_N[node]
    return reached_N & leads_N
