"""The device mesh: the only home of axis names."""

import jax
from jax.sharding import AxisType, Mesh

ARCH = "arch"  # candidates are split over this axis
DATA = "data"  # images of a batch are split over this axis


def make_mesh(data: int = 1) -> Mesh:
    """A mesh over all devices: ``data`` of them share a candidate's batch, the rest split the candidates."""
    devices = jax.device_count()
    return jax.make_mesh((devices // data, data), (ARCH, DATA), axis_types=(AxisType.Auto, AxisType.Auto))
