"""This process's place among the processes of a run."""

import os
from typing import NamedTuple

from jaxhypernas.types import UserError

VARIABLES = ("JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID")
"""Environment variables that tell the place where no cluster does."""


class Place(NamedTuple):
    """This process among the others."""

    coordinator: str
    """HOST:PORT of process 0."""

    processes: int
    """Number of processes."""

    process: int
    """This process's number, from 0."""


def find(timeout_s: int) -> Place:
    """Finds this process's place, from `VARIABLES` or from the cluster.

    The clusters are the ones that JAX knows: Slurm, Open MPI, Cloud TPU, Kubernetes.

    Args:
        timeout_s: Seconds to wait for a cluster's answer.

    Raises:
        UserError: The variables make no sense, or there are none and no cluster.
    """
    values = [os.environ.get(name, "") for name in VARIABLES]
    if all(values):
        return _parsed(*values)

    # Private, but JAX offers no other way to ask before it connects.
    from jax._src.clusters import ClusterEnv

    # The service that answers for a cluster may raise anything.
    try:
        found = ClusterEnv.auto_detect_unset_distributed_params(
            None, None, None, None, None, timeout_s
        )
    except Exception as error:
        raise UserError(
            f"distributed: the cluster doesn't tell this process's place ({error})"
        ) from None
    coordinator, processes, process, _ = found
    if coordinator is None or processes is None or process is None:
        raise UserError(
            "distributed: no cluster that JAX knows was found: set "
            f"{', '.join(VARIABLES)}"
        )
    return Place(coordinator, processes, process)


def _parsed(coordinator: str, processes: str, process: str) -> Place:
    """The place that the values of the variables say."""
    port = coordinator.rpartition(":")[2]
    try:
        place = Place(coordinator, int(processes), int(process))
        if port.isdecimal() and 0 <= place.process < place.processes:
            return place
    except ValueError:
        pass
    values = zip(VARIABLES, (coordinator, processes, process), strict=True)
    listed = " ".join(f"{name}={value}" for name, value in values)
    raise UserError(
        f"distributed: {listed} is not HOST:PORT, a number N of processes, and a "
        "process number from 0 to N - 1"
    )
