"""How should candidates run on an accelerator: one after the other, in chunks, or all of them side by side?

Claim: on a TPU v5e the library's choice costs at most 0.4 times the cycles of a `jax.vmap` of `lax.switch` over the
whole population forward, 0.35 times with the gradient, and 0.05 times the temporary memory: `jax.vmap` makes of a
branch a select that computes every op, and of a convolution a grouped one.
Command: python experiments/bench/accelerator.py --topology v5e:2x2 [--json]: compiled for a device of that slice,
nothing is run (extra tpu; minutes on two cores); --gpu h100_sxm.txtpb: for the GPU that XLA describes in such a file of
its sources (extra cuda); with neither: compiled for the device that is there, and timed.
NAS-Bench-201 cells with weights of their own, as a hypernetwork writes them, each op on as many edges of the population
as any other; the loss of a batch, and its gradient with respect to the weights. Loops count as often as they run,
conditionals as the mean of their branches. Cycles are the compiler's estimate.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np
import tyro
from jax.experimental import topologies
from networks import jax_network
from timing import best

from jaxhypernas.execution.candidates import (
    ExecutionConfig,
    choose,
    map_candidates,
)
from jaxhypernas.numerics.nn import cross_entropy
from jaxhypernas.programs.ahead import hlo
from jaxhypernas.programs.ahead.preflight import slice_devices
from jaxhypernas.spaces import CellConfig
from jaxhypernas.spaces.nasbench201 import STRUCTURE, choices, from_choices
from jaxhypernas.targets import cell_network
from jaxhypernas.types import Target

IMAGE, CLASSES = (32, 32, 3), 10


class Way(NamedTuple):
    """A way of running a population."""

    name: str
    form: (
        Literal["branch", "fused"] | None
    )  # of a node's op; None: the network that a user would write
    chunk: int  # candidates side by side; 0: all


WAYS = [
    Way("one at a time, branches", "branch", 1),
    Way("one at a time, fused", "fused", 1),
    Way("8 side by side, fused", "fused", 8),
    Way("8 side by side, selects", "branch", 8),
    Way("all side by side, selects", "branch", 0),
    Way("naive vmap of switch", None, 0),
]


@dataclass(frozen=True)
class Args:
    topology: str | None = None  # compile for a TPU slice, as v5e:2x2
    gpu: Path | None = None  # ... or for the GPU that this file describes
    candidates: int = 64
    batch: int = 128
    channels: int = 16
    cells: int = 1  # per stage
    json: bool = False  # one JSON object as the last line


def network(args: Args) -> Target:
    return cell_network(
        STRUCTURE, CellConfig(args.channels, args.cells), IMAGE, CLASSES
    )


def programs(args: Args, way: Way):
    """The loss of each candidate, and its gradient: (name, function of candidates (theta, arch), x and y)."""
    target = network(args)

    def apply(theta, arch, x):
        if way.form is None:
            return jax_network(theta, choices(arch), x)
        return target.forms.get(way.form, target).apply(theta, arch, x)

    def mapped(of_one):
        def run(candidates, x, y):
            def one(candidate):
                return of_one(
                    lambda theta, arch: cross_entropy(apply(theta, arch, x), y)
                )(*candidate)

            return (
                map_candidates(one, candidates, way.chunk)
                if way.chunk
                else jax.vmap(one)(candidates)
            )

        return run

    yield "forward", mapped(lambda loss: loss)
    yield "gradient", mapped(jax.value_and_grad)


def inputs(args: Args):
    """Candidates with balanced ops and random weights, images, labels."""
    rng = np.random.default_rng(0)
    choice_Ax6 = rng.permutation(np.arange(args.candidates * 6) % 5).reshape(
        -1, 6
    )

    def draw(s):
        return rng.normal(0, 0.1, (args.candidates, *s.shape)).astype(
            np.float32
        )

    candidates = (
        jax.tree.map(draw, network(args).weight_spec),
        from_choices(choice_Ax6),
    )
    x = rng.normal(size=(args.batch, *IMAGE)).astype(np.float32)
    return candidates, x, rng.integers(0, CLASSES, args.batch, np.int32)


def device_of(args: Args) -> tuple[Any, float | None]:
    """What to compile for, and the clock of a TPU that isn't there."""
    if args.topology is None and args.gpu is None:
        return jax.devices()[0], None
    jax.config.update("jax_platforms", "cpu")
    if args.gpu is not None:
        target = {"topology": "1x1x1", "target_config": args.gpu.read_text()}
        return topologies.get_topology_desc("gpu", "cuda", **target).devices[
            0
        ], None
    chip, devices = slice_devices(str(args.topology))
    return devices[0], chip.clock


def chosen(args: Args, platform: str) -> str:
    """The name of the way that the library chooses; none on CPU."""
    chunk, form, _ = choose(ExecutionConfig(), network(args), platform)
    return next(
        (way.name for way in WAYS if (way.form, way.chunk) == (form, chunk)), ""
    )


def compare(rows: list[dict], way: str, naive: str) -> list[dict]:
    """What a way takes, as a share of what the naive one does, in each pass that both compiled for."""
    found = {
        (row["way"], row["pass"]): row for row in rows if "error" not in row
    }
    return [
        {"way": way, "pass": name}
        | {
            k: found[way, name][k] / row[k]
            for k in ("ms", "temporaries_mib")
            if row[k]
        }
        for (of, name), row in found.items()
        if of == naive and (way, name) in found
    ]


def main(args: Args) -> None:
    device, clock = device_of(args)
    timed = args.topology is None and args.gpu is None
    given = inputs(args)
    placed = jax.device_put(given, device) if timed else ()
    sharding = jax.sharding.SingleDeviceSharding(device)
    shapes = jax.tree.map(
        lambda v: jax.ShapeDtypeStruct(
            v.shape, jnp.asarray(v).dtype, sharding=sharding
        ),
        given,
    )
    print(
        f"{device.device_kind}, {args.candidates} candidates, batch {args.batch}, C={args.channels}, N={args.cells}"
    )
    print(
        f"{'per candidate':38}{'GFLOP':>9}{'MB':>9}{'Mcycles':>9}{'ms':>9}   MiB of temporaries, in all"
    )
    rows = []
    for way in WAYS:
        for name, run in programs(args, way):
            row: dict = {"way": way.name, "pass": name}
            try:
                program = jax.jit(run).lower(*shapes).compile()
            except jax.errors.JaxRuntimeError as error:
                rows.append(
                    {**row, "error": " ".join(str(error).split())[:200]}
                )
                print(f"{name:10}{way.name:28} {rows[-1]['error']}", flush=True)
                continue
            work, memory = (
                hlo.read(program),
                cast(Any, program.memory_analysis()),
            )
            each = [
                v / args.candidates
                for v in (work.flops / 1e9, work.bytes / 1e6, work.cycles / 1e6)
            ]
            seconds = (
                best(lambda p=program: p(*placed))
                if timed
                else work.cycles / (clock or 1)
            )
            row |= dict(zip(("gflop", "mb", "mcycles"), each, strict=True))
            row |= {
                "ms": seconds / args.candidates * 1e3,
                "temporaries_mib": memory.temp_size_in_bytes / 2**20,
            }
            rows.append(row)
            cells = [
                f"{row[k]:9.3f}" if row[k] else f"{'-':>9}"
                for k in ("gflop", "mb", "mcycles", "ms")
            ]
            print(
                f"{name:10}{way.name:28}{''.join(cells)}{row['temporaries_mib']:9.0f}",
                flush=True,
            )
    ratios = compare(rows, chosen(args, device.platform), WAYS[-1].name)
    for ratio in ratios:
        print(
            ", ".join(
                f"{k} {v:.3g}" if isinstance(v, float) else v
                for k, v in ratio.items()
            )
        )
    if args.json:
        print(
            json.dumps(
                {
                    "device": device.device_kind,
                    "timed": timed,
                    "rows": rows,
                    "ratios": ratios,
                }
            )
        )


if __name__ == "__main__":
    main(tyro.cli(Args))
