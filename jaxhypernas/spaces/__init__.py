"""Search spaces: sampling, mutation, strings, graphs and counts of architectures.

The arrays of an architecture are described in ``archs``; `families.FAMILIES` lists the
spaces with their targets. `dag.dag_space` makes a space of cells from a few lines;
`conformance.check` tells whether a space of your own keeps the contracts.
"""
