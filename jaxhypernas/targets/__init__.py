"""Target networks, each written for one architecture: ``apply(theta, arch, x)``.

`families.FAMILIES` lists them with their spaces; `ops.OPS` has the ops of cells.
"""
