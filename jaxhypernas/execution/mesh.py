"""The device mesh: the only home of axis names."""

from collections.abc import Sequence

import jax
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

ARCH = "arch"  # candidates are split over this axis
DATA = "data"  # images of a batch are split over this axis
PROCESS = "process"  # images of a streamed batch are split over this axis


def make_mesh(
    data: int = 1, devices: Sequence[jax.Device] | None = None
) -> Mesh:
    """A mesh over all devices: groups of ``data`` share the images of a candidate, the groups split the candidates."""
    devices = jax.devices() if devices is None else devices
    shape, types = (len(devices) // data, data), (AxisType.Auto, AxisType.Auto)
    return jax.make_mesh(shape, (ARCH, DATA), axis_types=types, devices=devices)


def by_process(mesh: Mesh) -> NamedSharding:
    """Arrays T x B x ..., B split over the processes that a mesh's devices belong to, and the same on all of one's."""
    processes = len({device.process_index for device in mesh.devices.flat})
    return NamedSharding(
        Mesh(mesh.devices.reshape(processes, -1), (PROCESS, DATA)),
        PartitionSpec(None, PROCESS),
    )
