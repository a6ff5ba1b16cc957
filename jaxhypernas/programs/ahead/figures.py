"""Memory, work and speed of a run's programs on a TPU slice that is not there."""

import re
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any, NamedTuple, cast

import jax

from jaxhypernas.config.config import Config
from jaxhypernas.execution.devices import is_out_of_memory
from jaxhypernas.execution.mesh import DATA
from jaxhypernas.programs.ahead import hlo
from jaxhypernas.programs.ahead.chips import Chip
from jaxhypernas.programs.ahead.lowering import Program, lowered, plan
from jaxhypernas.types import UserError

_REMEDY = {
    "train": "--execution.chunk (candidates side by side), --train.batch",
    "score": "--execution.chunk (candidates side by side), --score.batch",
    "retrain": "--retrain.train.batch",
}
"""Flags that the memory of each program depends on."""


class Figures(NamedTuple):
    """What is known of a program.

    Rates are estimates, of all devices together.
    """

    program: str
    """Name of the program."""

    compile_s: float
    """Seconds that compiling took."""

    arguments: int
    """Bytes of the arguments on a device."""

    outputs: int
    """Bytes of the results on a device."""

    temporaries: int
    """Bytes of everything in between on a device."""

    memory: float
    """Bytes of memory of a device."""

    candidates: float
    """Candidates per device and call; in training per step, where devices may share a
    candidate."""

    images: int
    """Images per candidate."""

    flops: float
    """FLOPs of products and convolutions, per candidate. Conditionals count as the mean
    of their branches."""

    bytes: float
    """Bytes read from and written to device memory, per candidate."""

    collectives: dict[str, tuple[float, float]]
    """For each kind of collective, how often it runs in a call, and the bytes of its
    results."""

    candidates_per_s: float
    """Rate at the chip's published peak of arithmetic or of bandwidth, whichever
    bounds."""

    candidates_per_s_by_cycles: float
    """Rate by the compiler's own estimate of cycles."""

    bound: str
    """"arithmetic" or "bandwidth"."""


def fitting(
    config: Config, devices: Sequence[jax.Device]
) -> tuple[Config, str | None]:
    """Makes the images of a training step divide among devices.

    Args:
        config: The configuration.
        devices: The devices.

    Returns:
        The configuration with as many architectures per step as need be, and a line
        that says so; None if nothing had to change.

    Raises:
        UserError: A field does not fit the space, the images or the devices.
    """
    parts, _ = plan(config, devices)
    shared = parts.mesh.shape[DATA]
    trained = parts.searched.generator.trained
    if not trained or config.train.batch % shared == 0:
        return config, None
    # Where architectures divide among the devices, no images are shared.
    needed = -(-config.train.architectures // len(devices)) * len(devices)
    changed = replace(config.train, architectures=needed)
    return replace(config, train=changed), (
        f"train.batch: {config.train.batch} must be a multiple of the {shared} devices "
        f"that share it, or training stops: figures are for --train.architectures "
        f"{needed}"
    )


def compiled(
    config: Config, chip: Chip, devices: Sequence[jax.Device]
) -> Iterator[Figures | UserError]:
    """Compiles the programs of a run for a slice::

        chip, devices = slice_devices("v5e:16x16")
        for figures in compiled(Config(), chip, devices):
            print(figures)

    Args:
        config: The configuration.
        chip: The chip.
        devices: The devices of the slice, as `chips.slice_devices` returns them.

    Yields:
        The figures of each program, or an error that says by how much it exceeds the
        memory of the chip.

    Raises:
        UserError: A field does not fit the space, the images or the devices.
    """
    for program in lowered(config, devices):
        began = time.time()
        try:
            executable = program.lowered.compile()
        except jax.errors.JaxRuntimeError as error:
            # Any other error is a defect, not a program that is too large.
            if not is_out_of_memory(error):
                raise
            yield UserError(
                f"{program.name}: {_excess(str(error))}: lower "
                f"{_REMEDY[program.name]}, or the size of the networks"
            )
            continue
        seconds = time.time() - began
        yield _figures(program, executable, chip, len(devices), seconds)


def _figures(
    program: Program,
    executable: jax.stages.Compiled,
    chip: Chip,
    devices: int,
    seconds: float,
) -> Figures:
    memory = cast(Any, executable.memory_analysis())
    work = hlo.read(executable)
    arithmetic_s = work.flops / chip.flops
    bandwidth_s = work.bytes / chip.bandwidth
    cycles_s = work.cycles / chip.clock
    everywhere = program.candidates * devices
    return Figures(
        program=program.name,
        compile_s=round(seconds, 1),
        arguments=memory.argument_size_in_bytes,
        outputs=memory.output_size_in_bytes,
        temporaries=memory.temp_size_in_bytes,
        memory=chip.memory,
        candidates=program.candidates,
        images=program.images,
        flops=work.flops / program.candidates,
        bytes=work.bytes / program.candidates,
        collectives=work.collectives,
        candidates_per_s=everywhere / max(arithmetic_s, bandwidth_s),
        candidates_per_s_by_cycles=everywhere / cycles_s,
        bound="arithmetic" if arithmetic_s > bandwidth_s else "bandwidth",
    )


def _excess(message: str) -> str:
    """By how much a program does not fit, from the compiler's long message."""
    # The first two sizes are the memory needed and the memory there is.
    sizes = re.findall(r"\b([\d.]+)([KMG])\b", message)
    if len(sizes) < 2:
        return " ".join(message.split())[:200]
    used, available = (
        float(size) / 1024 ** "GMK".index(unit) for size, unit in sizes[:2]
    )
    return (
        f"needs {used:.2f} GiB of {available:.2f} GiB on a device, "
        f"{used - available:.2f} GiB too much"
    )
