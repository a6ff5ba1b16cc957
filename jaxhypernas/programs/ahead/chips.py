"""TPU chips as published, and the devices of slices that are not there."""

import importlib.util
import os
from typing import Any, NamedTuple

import jax
from jax.experimental import topologies

from jaxhypernas.types import UserError


class Chip(NamedTuple):
    """A TPU chip as published."""

    flops: float
    """FLOPs per second in bfloat16, in which TPUs multiply float32 by default."""

    bandwidth: float
    """Bandwidth of its memory, bytes per second."""

    memory: float
    """Size of its memory, bytes."""

    clock: float
    """Cycles per second, from the peak and the number of its matrix units."""

    options: dict[str, str]
    """Arguments of ``get_topology_desc`` that give one device per chip."""


_MEGACORE = {"chip_config_name": "megacore"}

CHIPS: dict[str, Chip] = {
    "v4": Chip(
        flops=275e12,
        bandwidth=1.228e12,
        memory=32 * 2**30,
        clock=1.05e9,
        options=_MEGACORE,
    ),
    "v5e": Chip(
        flops=197e12,
        bandwidth=0.819e12,
        memory=16 * 2**30,
        clock=1.5e9,
        options={},
    ),
    "v5p": Chip(
        flops=459e12,
        bandwidth=2.765e12,
        memory=95 * 2**30,
        clock=1.75e9,
        options=_MEGACORE,
    ),
    "v6e": Chip(
        flops=918e12,
        bandwidth=1.64e12,
        memory=32 * 2**30,
        clock=1.75e9,
        options={},
    ),
}
"""The chips by the names that topologies begin with."""

# Without a TPU the compiler must ask no metadata server for one, share itself with
# other processes, and complain of no missing hosts.
_ENVIRONMENT = {
    "TPU_SKIP_MDS_QUERY": "1",
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "TPU_ACCELERATOR_TYPE": "v5litepod-4",
}


def slice_devices(topology: str) -> tuple[Chip, list[Any]]:
    """Describes a slice, for `jax.stages.Wrapped.lower`; no TPU is needed::

        chip, devices = slice_devices("v5e:16x16")

    Args:
        topology: The chip and the shape of the slice.

    Returns:
        The chip, and the slice's devices.

    Raises:
        UserError: There is no such slice, or no compiler for TPUs.
    """
    if importlib.util.find_spec("libtpu") is None:
        raise UserError(
            "topology: the TPU compiler is not installed: pip install -e '.[tpu]' in "
            "the package's checkout"
        )
    name = topology.split(":")[0]
    if name not in CHIPS:
        raise UserError(
            f"topology: {topology!r} is not CHIP:SHAPE, as in v5e:16x16, with one of "
            f"{', '.join(CHIPS)}"
        )
    chip = CHIPS[name]
    for variable, value in _ENVIRONMENT.items():
        os.environ.setdefault(variable, value)
    try:
        found = topologies.get_topology_desc(
            platform="tpu", topology_name=topology, **chip.options
        )
    except jax.errors.JaxRuntimeError as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(
            f"topology: there is no slice {topology!r} ({reason})"
        ) from None
    return chip, found.devices
