"""Do time per candidate and memory stay flat as candidates, devices and cells grow?

Claim: scoring 100,000 candidates takes within 10 % of the time per candidate that 1,000 take, and memory grows by no
more than the candidates' own arrays and scores.
Command: python experiments/bench/growth.py [--json]. Each row is a process of its own: cells of the GHN paper's space,
8x8x1 images, C=4, one cell per stage, the same shared weights, one batch of 16 images; the first call compiles and is
not timed; the fastest of as many runs as fit into 20 seconds (one at least) counts. Memory: by how much the process
grows at most while it scores (Linux), and what candidates and scores alone take.
"""

import json
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import tyro

from jaxhypernas import spaces
from jaxhypernas.execution.candidates import ExecutionConfig, choose
from jaxhypernas.execution.mesh import make_mesh
from jaxhypernas.generators import standalone
from jaxhypernas.programs.scoring import Batches, make_score, score_one
from jaxhypernas.spaces.ghn import dag
from jaxhypernas.targets import cell_network

IMAGE, ENOUGH_S = (8, 8, 1), 20


@dataclass(frozen=True)
class Args:
    candidates: tuple[int, ...] = (
        1_000,
        10_000,
        100_000,
    )  # on two devices, cells of 7 nodes
    devices: tuple[int, ...] = (1, 2, 4, 8)  # 10,000 candidates
    nodes: tuple[int, ...] = (7, 11, 17)  # 10,000 candidates, two devices
    json: bool = False  # one JSON object as the last line


@dataclass(frozen=True)
class Row:
    candidates: int = 10_000
    devices: int = 2
    nodes: int = 7


def status_mib(field: str) -> float:
    line = next(
        x
        for x in Path("/proc/self/status").read_text().splitlines()
        if x.startswith(field)
    )
    return int(line.split()[1]) / 1024


def measure(row: Row) -> dict:
    jax.config.update("jax_num_cpu_devices", row.devices)
    space = spaces.ghn(IMAGE, 10, 4, 1, row.nodes)
    config = spaces.CellConfig(4, 1, row.nodes)
    target = cell_network(dag(row.nodes).structure, config, IMAGE, 10)
    chunk, _, target = choose(ExecutionConfig(), target, jax.default_backend())
    generator = standalone(target.weight_spec, target.nodes)
    phi = generator.init(jax.random.key(0))
    batches = Batches(
        jax.random.normal(jax.random.key(1), (1, 16, *IMAGE)),
        jnp.zeros((1, 16), jnp.int32),
    )
    sample = jax.jit(jax.vmap(lambda key: space.sample(key, 1.0)))
    archs = jax.device_get(
        sample(jax.random.split(jax.random.key(2), row.candidates))
    )
    score = make_score(
        partial(score_one, target, generator), make_mesh(), chunk
    )
    score((phi, batches), jax.tree.map(lambda x: x[:1000], archs))

    Path("/proc/self/clear_refs").write_text("5")
    before, times = status_mib("VmRSS"), []
    while sum(times) < ENOUGH_S:
        began = time.perf_counter()
        scores = score((phi, batches), archs)
        times.append(time.perf_counter() - began)
    own = sum(x.nbytes for x in jax.tree.leaves((archs, scores))) / 2**20
    return {
        **asdict(row),
        "us_per_candidate": round(min(times) / row.candidates * 1e6, 1),
        "grown_mib": round(status_mib("VmHWM") - before, 1),
        "arrays_mib": round(own, 1),
    }


def main(args: Args) -> None:
    wanted = [Row(candidates=n) for n in args.candidates]
    wanted += [Row(devices=n) for n in args.devices] + [
        Row(nodes=n) for n in args.nodes
    ]
    rows = []
    for row in dict.fromkeys(wanted):
        command = [sys.executable, __file__, json.dumps(asdict(row))]
        rows.append(
            json.loads(
                subprocess.run(
                    command, check=True, capture_output=True, text=True
                ).stdout
            )
        )
        print(
            "  ".join(f"{name} {value}" for name, value in rows[-1].items()),
            flush=True,
        )
    if args.json:
        print(json.dumps({"rows": rows}))


if __name__ == "__main__":
    if sys.argv[1:2] and sys.argv[1].startswith("{"):
        print(json.dumps(measure(Row(**json.loads(sys.argv[1])))))
    else:
        main(tyro.cli(Args))
