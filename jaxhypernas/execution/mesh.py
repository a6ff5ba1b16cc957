"""The mesh of devices: the only home of axis names."""

from collections.abc import Sequence

import jax
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

ARCH = "arch"
"""Candidates are split over this axis."""

DATA = "data"
"""The images of a batch are split over this axis."""

PROCESS = "process"
"""The images of a streamed batch are split over this axis."""


def make_mesh(
    data: int = 1, devices: Sequence[jax.Device] | None = None
) -> Mesh:
    """Returns a mesh of groups of devices: groups split the candidates.

    Args:
        data: Devices per group; they share the images of a batch.
        devices: The devices, a multiple of ``data``; None: all devices of all
            processes.
    """
    devices = jax.devices() if devices is None else devices
    return jax.make_mesh(
        (len(devices) // data, data),
        (ARCH, DATA),
        axis_types=(AxisType.Auto, AxisType.Auto),
        devices=devices,
    )


def by_process(mesh: Mesh) -> NamedSharding:
    """Returns the sharding of streamed arrays T x B x ... for a mesh's devices.

    B is split over the processes that the devices belong to; all devices of a process
    hold the same images.

    Args:
        mesh: The mesh, with equally many devices of each process.
    """
    processes = {device.process_index for device in mesh.devices.flat}
    devices = mesh.devices.reshape(len(processes), -1)
    return NamedSharding(
        Mesh(devices, (PROCESS, DATA)), PartitionSpec(None, PROCESS)
    )
