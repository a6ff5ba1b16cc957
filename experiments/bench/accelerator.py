"""How should candidates run on an accelerator: one after the other, or side by side?

Claim: on a TPU v5e the library's choice costs at most 0.4 times the cycles of a
`jax.vmap` of `lax.switch` over the whole population forward, 0.35 times with the
gradient, and 0.05 times the temporary memory. `jax.vmap` makes of a branch a select
that computes every op, and of a convolution a grouped one.
Command: python experiments/bench/accelerator.py --topology v5e:2x2 [--json] compiles
for a device of that slice and runs nothing (extra tpu). --gpu h100_sxm.txtpb compiles
for the GPU that XLA describes in such a file of its sources (extra cuda). With neither,
programs are compiled for the device that is there, and timed.
Hardware: two CPU cores compile for a TPU; minutes.
Numbers: 0.26 and 0.34 of the cycles, 0.006 and 0.017 of the memory
(experiments/LOG.md).

Networks: NAS-Bench-201 cells with weights of their own, as a hypernetwork writes them,
each op on as many edges of the population as any other. Programs: the loss of a batch,
and its gradient with respect to the weights. Loops count as often as they run,
conditionals as the mean of their branches. Cycles are the compiler's estimate.
"""

import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np
import tyro
from jax.experimental import topologies
from measures import best_seconds
from networks import jax_network

from jaxhypernas.archs.sizes import Nasbench201Config
from jaxhypernas.execution.candidates import map_candidates
from jaxhypernas.execution.choice import choose
from jaxhypernas.execution.config import ExecutionConfig
from jaxhypernas.families import FAMILIES
from jaxhypernas.numerics.losses import cross_entropy
from jaxhypernas.programs.ahead import hlo
from jaxhypernas.programs.ahead.chips import slice_devices
from jaxhypernas.spaces.nasbench201 import (
    EDGE_OPS,
    EDGES,
    choices,
    from_choices,
)
from jaxhypernas.types import Target, UserError

IMAGE = (32, 32, 3)
CLASSES = 10


class Way(NamedTuple):
    """A way of running a population."""

    name: str
    """Its name in the table."""

    form: Literal["branch", "fused"] | None
    """Form of the target; None: the network that a user would write."""

    chunk: int
    """Candidates side by side; 0: all."""


WAYS = [
    Way("one at a time, branches", "branch", 1),
    Way("one at a time, fused", "fused", 1),
    Way("8 side by side, fused", "fused", 8),
    Way("8 side by side, selects", "branch", 8),
    Way("all side by side, selects", "branch", 0),
    Way("naive vmap of switch", None, 0),
]
NAIVE = WAYS[-1].name


@dataclass(frozen=True)
class Args:
    """Arguments."""

    topology: str | None = None
    """TPU slice to compile for, as in v5e:2x2"""

    gpu: Path | None = None
    """file that describes a GPU to compile for"""

    space: Nasbench201Config = Nasbench201Config(channels=16, cells=1)
    """sizes of the networks"""

    candidates: int = 64
    """number of architectures"""

    batch: int = 128
    """images of the batch"""

    json: bool = False
    """print one JSON object as the last line"""

    @property
    def timed(self) -> bool:
        """Whether programs run on the device that is there."""
        return self.topology is None and self.gpu is None


def network(args: Args) -> Target:
    """Returns the networks, with their forms."""
    _, target = FAMILIES["nasbench201"].build(args.space, IMAGE, CLASSES)
    return target


def programs(args: Args, way: Way) -> Iterator[tuple[str, Callable]]:
    """Yields the name and the function of each pass.

    The function takes candidates (theta, arch), images and labels.
    """
    target = network(args)

    def apply(theta, arch, x):
        if way.form is None:
            return jax_network(theta, choices(arch), x)
        return target.forms.get(way.form, target).apply(theta, arch, x)

    def mapped(transform):
        def run(candidates, x, y):
            def loss(theta, arch):
                return cross_entropy(apply(theta, arch, x), y)

            def one(candidate):
                return transform(loss)(*candidate)

            if way.chunk:
                return map_candidates(one, candidates, way.chunk)
            return jax.vmap(one)(candidates)

        return run

    yield "forward", mapped(lambda loss: loss)
    yield "gradient", mapped(jax.value_and_grad)


def inputs(args: Args) -> tuple[Any, np.ndarray, np.ndarray]:
    """Returns candidates with balanced ops and random weights, images and labels."""
    rng = np.random.default_rng(0)
    op_E = np.arange(args.candidates * len(EDGES)) % len(EDGE_OPS)
    choice_Ax6 = rng.permutation(op_E).reshape(-1, len(EDGES))

    def draw(leaf):
        shape = (args.candidates, *leaf.shape)
        return rng.normal(0, 0.1, shape).astype(np.float32)

    theta = jax.tree.map(draw, network(args).weight_spec)
    x = rng.normal(size=(args.batch, *IMAGE)).astype(np.float32)
    y = rng.integers(0, CLASSES, args.batch, np.int32)
    return (theta, from_choices(choice_Ax6)), x, y


def device_of(args: Args) -> tuple[Any, float | None]:
    """Returns the device to compile for, and the clock of a TPU that is not there."""
    if args.timed:
        return jax.devices()[0], None
    jax.config.update("jax_platforms", "cpu")
    if args.gpu is not None:
        described = topologies.get_topology_desc(
            "gpu",
            "cuda",
            topology="1x1x1",
            target_config=args.gpu.read_text(),
        )
        return described.devices[0], None
    chip, devices = slice_devices(str(args.topology))
    return devices[0], chip.clock


def chosen(args: Args, platform: str) -> str:
    """Returns the name of the way that the library chooses; none on CPU."""
    chunk, form, _ = choose(ExecutionConfig(), network(args), platform)
    for way in WAYS:
        if (way.form, way.chunk) == (form, chunk):
            return way.name
    return ""


def figures(
    args: Args,
    program: jax.stages.Compiled,
    placed: tuple,
    clock: float | None,
) -> dict[str, float]:
    """Returns the figures of a program, per candidate but for its temporaries."""
    work = hlo.read(program)
    memory = cast(Any, program.memory_analysis())
    if args.timed:
        seconds = best_seconds(lambda: program(*placed))
    else:
        seconds = work.cycles / (clock or 1)
    return {
        "gflop": work.flops / 1e9 / args.candidates,
        "mb": work.bytes / 1e6 / args.candidates,
        "mcycles": work.cycles / 1e6 / args.candidates,
        "ms": seconds / args.candidates * 1e3,
        "temporaries_mib": memory.temp_size_in_bytes / 2**20,
    }


def line(row: dict) -> str:
    """Returns a row of the table."""
    head = f"{row['pass']:10}{row['way']:28}"
    if "error" in row:
        return f"{head} {row['error']}"
    cells = [
        f"{row[name]:9.3f}" if row[name] else f"{'-':>9}"
        for name in ("gflop", "mb", "mcycles", "ms")
    ]
    return f"{head}{''.join(cells)}{row['temporaries_mib']:9.0f}"


def measure(
    args: Args, device: jax.Device, clock: float | None
) -> Iterator[dict]:
    """Yields the row of each pass of each way."""
    given = inputs(args)
    placed = jax.device_put(given, device) if args.timed else ()
    sharding = jax.sharding.SingleDeviceSharding(device)
    shapes = jax.tree.map(
        lambda v: jax.ShapeDtypeStruct(
            v.shape, jnp.asarray(v).dtype, sharding=sharding
        ),
        given,
    )
    for way in WAYS:
        for name, run in programs(args, way):
            row = {"way": way.name, "pass": name}
            try:
                program = jax.jit(run).lower(*shapes).compile()
            except jax.errors.JaxRuntimeError as error:
                # Most probably it exceeds the memory of the device.
                yield {**row, "error": " ".join(str(error).split())[:200]}
                continue
            yield {**row, **figures(args, program, placed, clock)}


def compare(rows: list[dict], way: str) -> list[dict]:
    """Returns a way's time and memory as shares of the naive one's.

    There is a row for each pass that compiled for both.
    """
    found = {
        (row["way"], row["pass"]): row for row in rows if "error" not in row
    }
    ratios = []
    for (name, of_pass), naive in found.items():
        if name != NAIVE or (way, of_pass) not in found:
            continue
        ours = found[way, of_pass]
        shares = {
            key: ours[key] / naive[key]
            for key in ("ms", "temporaries_mib")
            if naive[key]
        }
        ratios.append({"way": way, "pass": of_pass, **shares})
    return ratios


def main(args: Args) -> None:
    """Prints the table and the ratios."""
    device, clock = device_of(args)
    print(
        f"{device.device_kind}, {args.candidates} candidates, batch {args.batch}, "
        f"C={args.space.channels}, N={args.space.cells}"
    )
    print(
        f"{'per candidate':38}{'GFLOP':>9}{'MB':>9}{'Mcycles':>9}{'ms':>9}"
        "   MiB of temporaries, in all"
    )
    rows = []
    for row in measure(args, device, clock):
        rows.append(row)
        print(line(row), flush=True)

    ratios = compare(rows, chosen(args, device.platform))
    for ratio in ratios:
        shares = [
            f"{name} {value:.3g}"
            for name, value in ratio.items()
            if isinstance(value, float)
        ]
        print(", ".join([ratio["way"], ratio["pass"], *shares]))
    if args.json:
        result = {
            "device": device.device_kind,
            "timed": args.timed,
            "rows": rows,
            "ratios": ratios,
        }
        print(json.dumps(result))


if __name__ == "__main__":
    try:
        main(tyro.cli(Args))
    except UserError as error:
        # The compiler for TPUs is missing, or there is no such slice.
        sys.exit(f"accelerator: {error}")
