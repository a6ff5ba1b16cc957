"""Whether a run fits a TPU slice, and about how fast it is, before one is rented: its programs, compiled ahead of time.

Neither devices nor data are needed: arrays are known by their shapes.
"""

import importlib.util
import os
import re
import time
from collections.abc import Iterator
from dataclasses import replace
from functools import cached_property, partial
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
from jax.experimental import topologies
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from jaxhypernas.config.config import Config
from jaxhypernas.data import dataset as data
from jaxhypernas.execution.mesh import ARCH, make_mesh
from jaxhypernas.programs.ahead import hlo
from jaxhypernas.programs.parts import Components, images_shared
from jaxhypernas.programs.scoring import make_batches, score_one, score_program
from jaxhypernas.programs.training import Images, Segment
from jaxhypernas.programs.truth import retrain_program
from jaxhypernas.types import UserError


class Chip(NamedTuple):
    """A TPU chip as published."""

    flops: (
        float  # per second, bfloat16: what TPUs multiply float32 in by default
    )
    bandwidth: float  # of its memory, bytes per second
    memory: float  # bytes
    clock: float  # cycles per second, from the peak and the number of its matrix units
    options: dict[str, str]  # of its topologies: one device per chip


CHIPS = {
    "v4": Chip(
        275e12, 1.228e12, 32 * 2**30, 1.05e9, {"chip_config_name": "megacore"}
    ),
    "v5e": Chip(197e12, 0.819e12, 16 * 2**30, 1.5e9, {}),
    "v5p": Chip(
        459e12, 2.765e12, 95 * 2**30, 1.75e9, {"chip_config_name": "megacore"}
    ),
    "v6e": Chip(918e12, 1.64e12, 32 * 2**30, 1.75e9, {}),
}
REPLICATED = P()
LOWER = {  # what takes the memory of a program
    "train": "--execution.chunk (candidates side by side), --train.batch",
    "score": "--execution.chunk (candidates side by side), --score.batch",
    "retrain": "--retrain.train.batch",
}


class Figures(NamedTuple):
    """What is known of a program. Memory in bytes on a device; rates are estimates, of all devices together."""

    program: str
    compile_s: float
    arguments: int
    outputs: int
    temporaries: int
    memory: float  # of the chip
    candidates: float  # per device and call; in training per step, where devices may share one
    images: int  # per candidate
    flops: float  # of products and convolutions, per candidate; conditionals count as the mean of their branches
    bytes: float  # read and written in device memory, per candidate
    collectives: dict[
        str, tuple[float, float]
    ]  # per call: how often each kind runs, and bytes of its results
    candidates_per_s: float  # at the chip's published peaks, of arithmetic or of bandwidth, whichever bounds
    candidates_per_s_by_cycles: (
        float  # by the compiler's own estimate of cycles
    )
    bound: str  # "arithmetic" or "bandwidth"


class Planned(Components):
    """Components for devices that aren't there: arrays are shapes, as `jax.stages.Wrapped.lower` takes them."""

    def __init__(self, config: Config, devices: list):
        super().__init__(config)
        self._devices = devices

    @cached_property
    def dataset(self):
        """Its shapes, where the set isn't there."""
        return data.blank(self.config.data, self.config.seed)

    @cached_property
    def mesh(self):
        """The given devices, in training."""
        return make_mesh(
            images_shared(self.config, len(self._devices)), self._devices
        )

    @cached_property
    def local_mesh(self):
        """The given devices, each with candidates of its own: as if one process had all of them."""
        return make_mesh(devices=self._devices)

    def shapes(
        self, tree: Any, spec: P = REPLICATED, mesh: Mesh | None = None
    ) -> Any:
        """Of the arrays of a tree, replicated or split as ``spec`` says over a mesh, `local_mesh` if none is named."""
        sharding = NamedSharding(mesh or self.local_mesh, spec)
        return jax.tree.map(
            lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding),
            tree,
        )

    @cached_property
    def images(self):
        """The training split's shapes."""
        split = self.dataset.train
        return Images(
            *self.shapes(
                (
                    split.x_NxHxWxC,
                    split.y_N,
                    self.dataset.mean_C,
                    self.dataset.std_C,
                )
            )
        )

    @cached_property
    def streamed_images(self):
        """The shapes of streamed images."""
        steps, sharding = (
            (self.config.train.every, self.config.train.drawn),
            self.streamed,
        )
        images = jax.tree.map(
            lambda v: jax.ShapeDtypeStruct(
                (*steps, *v.shape[1:]), v.dtype, sharding=sharding
            ),
            self.dataset.valid,
        )
        return Segment(
            *images,
            *self.shapes(
                (self.dataset.mean_C, self.dataset.std_C), mesh=self.mesh
            ),
        )

    def _batches(self, split):
        batches = partial(make_batches, batch=self.config.score.batch)
        return self.shapes(
            jax.eval_shape(
                batches, split, self.dataset.mean_C, self.dataset.std_C
            )
        )

    def population(self, number: int) -> Any:
        """Of so many architectures."""
        keys = jax.ShapeDtypeStruct((number,), self.key.dtype)
        return self.shapes(
            jax.eval_shape(
                jax.vmap(lambda key: self.space.sample(key, 1.0)), keys
            ),
            P(ARCH),
        )


def lowered(
    config: Config, devices: list
) -> Iterator[tuple[str, jax.stages.Lowered, float, int]]:
    """The programs of a run, one by one: (name, program, candidates per device and call, images per candidate).

    Raises:
        UserError: a setting does not fit the space or the devices.
    """
    plan = Planned(config, devices)
    key, number = plan.shapes(plan.key), jax.ShapeDtypeStruct((), jnp.int32)
    if config.generator != "standalone":
        state = plan.shapes(jax.eval_shape(plan.start, plan.key))
        images = (
            plan.streamed_images
            if config.data.stream
            else plan.shapes(plan.images, mesh=plan.mesh)
        )
        state, number = plan.shapes((state, number), mesh=plan.mesh)
        program = plan.train_program.lower(state, images, number)
        yield (
            "train",
            program,
            config.train.architectures / len(devices),
            config.train.batch,
        )
        program = score_program(
            partial(score_one, plan.target, plan.generator),
            plan.local_mesh,
            plan.chunk,
        )
        numbers = plan.shapes(
            jax.ShapeDtypeStruct((len(devices),), jnp.int32), P(ARCH)
        )
        replicated, population = (
            (plan.shapes(state.phi), plan.valid),
            plan.population(len(devices) * plan.chunk),
        )
        program = program.lower(replicated, population, numbers)
        yield "score", program, plan.chunk, plan.valid.y_TxB.size
    if config.data.stream:
        return  # nothing is trained from scratch
    truth = config.retrain.train
    program = retrain_program(truth, config.data, plan.target, plan.local_mesh)
    seeds = plan.shapes(
        jax.ShapeDtypeStruct((len(devices),), jnp.int32), P(ARCH)
    )
    program = program.lower(
        (key, plan.images, plan.valid, plan.test),
        (plan.population(len(devices)), seeds),
    )
    yield "retrain", program, 1, truth.steps * truth.batch


def slice_devices(topology: str) -> tuple[Chip, list]:
    """The chip and the devices of a slice, as in "v5e:16x16".

    Raises:
        UserError: there is no such slice, or no compiler for TPUs.
    """
    if importlib.util.find_spec("libtpu") is None:
        raise UserError(
            "topology: the TPU compiler is not installed: pip install 'jaxhypernas[tpu]'"
        )
    chip = topology.split(":")[0]
    if chip not in CHIPS:
        raise UserError(
            f"topology: {topology!r} is not CHIP:SHAPE, as in v5e:16x16, with one of {', '.join(CHIPS)}"
        )
    # Without a TPU: ask no metadata server for one, share the compiler with other processes, say nothing of hosts.
    environment = {
        "TPU_SKIP_MDS_QUERY": "1",
        "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
        "TPU_WORKER_HOSTNAMES": "localhost",
    }
    for name, value in {
        **environment,
        "TPU_ACCELERATOR_TYPE": "v5litepod-4",
    }.items():
        os.environ.setdefault(name, value)
    try:
        found = topologies.get_topology_desc(
            platform="tpu", topology_name=topology, **CHIPS[chip].options
        )
    except jax.errors.JaxRuntimeError as error:
        raise UserError(
            f"topology: there is no slice {topology!r} ({' '.join(str(error).split())[:200]})"
        ) from None
    return CHIPS[chip], found.devices


def fitting(config: Config, devices: int) -> tuple[Config, str | None]:
    """The configuration with architectures and images per step that the devices can share, and what that changed."""
    have, shared = config.train.architectures, images_shared(config, devices)
    if config.generator == "standalone" or config.train.batch % shared == 0:
        return config, None
    need = -(-have // devices) * devices
    told = (
        f"train.batch: {config.train.batch} must be a multiple of the {shared} devices that share it, or training "
        f"stops: figures are for --train.architectures {need}"
    )
    return replace(
        config, train=replace(config.train, architectures=need)
    ), told


def compiled(config: Config, topology: str) -> Iterator[Figures | UserError]:
    """The figures of each program of a run, or what tells that it doesn't fit the chip's memory."""
    chip, devices = slice_devices(topology)
    for name, program, candidates, images in lowered(config, devices):
        began = time.time()
        try:
            executable = program.compile()
        except jax.errors.JaxRuntimeError as error:
            if "RESOURCE_EXHAUSTED" not in str(error):
                raise
            yield UserError(
                f"{name}: {_excess(str(error))}: lower {LOWER[name]}, or the size of the networks"
            )
            continue
        took, memory = (
            time.time() - began,
            cast(Any, executable.memory_analysis()),
        )
        work = hlo.read(executable)
        arithmetic, bandwidth = (
            work.flops / chip.flops,
            work.bytes / chip.bandwidth,
        )
        yield Figures(
            program=name,
            compile_s=round(took, 1),
            arguments=memory.argument_size_in_bytes,
            outputs=memory.output_size_in_bytes,
            temporaries=memory.temp_size_in_bytes,
            memory=chip.memory,
            candidates=candidates,
            images=images,
            flops=work.flops / candidates,
            bytes=work.bytes / candidates,
            collectives=work.collectives,
            candidates_per_s=candidates
            * len(devices)
            / max(arithmetic, bandwidth),
            candidates_per_s_by_cycles=candidates
            * len(devices)
            / (work.cycles / chip.clock),
            bound="arithmetic" if arithmetic > bandwidth else "bandwidth",
        )


def _excess(message: str) -> str:
    """By how much a program doesn't fit, from the compiler's long message."""
    sizes = re.findall(r"\b([\d.]+)([KMG])\b", message)
    if len(sizes) < 2:
        return " ".join(message.split())[:200]
    used, there = (
        float(size) / 1024 ** "GMK".index(unit) for size, unit in sizes[:2]
    )
    return f"needs {used:.2f} GiB of {there:.2f} GiB on a device, {used - there:.2f} GiB too much"


def lines(figures: Figures) -> str:
    """Figures as text."""
    f, mib = figures, 2**20
    total = f.arguments + f.outputs + f.temporaries
    moved = [
        f"{kind} x{count:g} ({size / mib:.2f} MiB)"
        for kind, (count, size) in sorted(f.collectives.items())
    ]
    rate = f.candidates_per_s, f.candidates_per_s_by_cycles
    if f.program == "score":
        speed = f"{rate[0]:,.0f} candidates/s, {rate[1]:,.0f}"
    elif f.program == "train":
        speed = f"{rate[0] * f.images:,.0f} images*candidates/s, {rate[1] * f.images:,.0f}"
    else:
        speed = f"{rate[0] * 3600:,.1f} candidates/h, {rate[1] * 3600:,.1f}"
    text = (
        f"{f.program}: {f.candidates:g} candidate(s) per device, {f.images:,} images each; compiled in {f.compile_s} s",
        f"  memory per device   {total / mib:,.0f} MiB of {f.memory / mib:,.0f}: {f.arguments / mib:,.0f} arguments, "
        f"{f.outputs / mib:,.0f} outputs, {f.temporaries / mib:,.0f} temporaries",
        f"  per candidate       {f.flops / 1e9:,.2f} GFLOP, {f.bytes / 1e9:,.2f} GB",
        f"  collectives         {', '.join(moved) or 'none'}",
        f"  at most             {speed} by the compiler's cycles; bound by {f.bound}",
    )
    return "\n".join(text)
