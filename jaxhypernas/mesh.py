"""The device mesh: the only home of axis names."""

from collections.abc import Sequence

import jax
from jax.sharding import AxisType, Mesh

ARCH = "arch"  # candidates are split over this axis
DATA = "data"  # images of a batch are split over this axis


def make_mesh(data: int = 1, devices: Sequence[jax.Device] | None = None) -> Mesh:
    """A mesh over all devices: groups of ``data`` share the images of a candidate, the groups split the candidates."""
    devices = jax.devices() if devices is None else devices
    shape, types = (len(devices) // data, data), (AxisType.Auto, AxisType.Auto)
    return jax.make_mesh(shape, (ARCH, DATA), axis_types=types, devices=devices)
