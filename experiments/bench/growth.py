"""Do time per candidate and memory stay flat as candidates, devices and cells grow?

Claim: scoring 100,000 candidates takes within 10 % of the time per candidate that 1,000
take, and memory grows by no more than the candidates' own arrays and scores.
Command: python experiments/bench/growth.py [--json]
Hardware: two AVX-512 CPU cores; minutes.
Numbers: 141 and 149 us per candidate, 0.3 and 3.1 MiB (experiments/LOG.md).

Each row is a process of its own. Networks: cells of the GHN paper's space, 4 channels,
one cell per stage, the same shared weights, one batch of 16 images of 8x8x1. The first
call compiles and is not timed; the fastest of as many calls as fit into 20 seconds (at
least one) counts. Memory is the growth of the process while it scores (Linux), beside
the size of candidates and scores alone.
"""

import json
import subprocess
import sys
from dataclasses import asdict, dataclass

import jax
import jax.numpy as jnp
import numpy as np
import tyro
from measures import Growth, seconds

from jaxhypernas.archs.population import rows
from jaxhypernas.archs.sizes import GhnCellConfig
from jaxhypernas.data.batches import Batches
from jaxhypernas.execution.choice import choose
from jaxhypernas.execution.config import ExecutionConfig
from jaxhypernas.execution.mesh import make_mesh
from jaxhypernas.families import FAMILIES
from jaxhypernas.generators.standalone import standalone
from jaxhypernas.programs.scoring import make_score

IMAGE = (8, 8, 1)
CLASSES = 10
BATCH = 16
ENOUGH_S = 20


@dataclass(frozen=True)
class Args:
    """Arguments."""

    candidates: tuple[int, ...] = (1_000, 10_000, 100_000)
    """numbers of candidates, on two devices, cells of 7 nodes"""

    devices: tuple[int, ...] = (1, 2, 4, 8)
    """numbers of devices, 10,000 candidates of 7 nodes"""

    nodes: tuple[int, ...] = (7, 11, 17)
    """numbers of nodes, 10,000 candidates on two devices"""

    json: bool = False
    """print one JSON object as the last line"""


@dataclass(frozen=True)
class Row:
    """A row of the table."""

    candidates: int = 10_000
    devices: int = 2
    nodes: int = 7


def measure(row: Row) -> dict[str, float]:
    """Returns the figures of a row; JAX must not have been used before."""
    jax.config.update("jax_num_cpu_devices", row.devices)
    sizes = GhnCellConfig(channels=4, cells=1, nodes=row.nodes)
    space, target = FAMILIES["ghn"].build(sizes, IMAGE, CLASSES)
    backend = jax.default_backend()
    chunk, _, target = choose(ExecutionConfig(), target, backend)
    generator = standalone(target.weight_spec, target.nodes)
    phi = generator.init(jax.random.key(0))
    batches = Batches(
        jax.random.normal(jax.random.key(1), (1, BATCH, *IMAGE)),
        jnp.zeros((1, BATCH), jnp.int32),
    )
    keys = jax.random.split(jax.random.key(2), row.candidates)
    sample = jax.jit(jax.vmap(lambda key: space.sample(key, 1.0)))
    archs = jax.device_get(sample(keys))
    equal_A = np.zeros(row.candidates)
    score = make_score(target, generator, make_mesh(), chunk)
    score((phi, batches), rows(archs, slice(1000)), equal_A[:1000])

    growth = Growth()
    scores = None
    times: list[float] = []

    def score_all() -> None:
        nonlocal scores
        scores = score((phi, batches), archs, equal_A)

    while sum(times) < ENOUGH_S:
        times.append(seconds(score_all))
    own = sum(x.nbytes for x in jax.tree.leaves((archs, scores)))
    return {
        **asdict(row),
        "us_per_candidate": round(min(times) / row.candidates * 1e6, 1),
        "grown_mib": round(growth.mib(), 1),
        "arrays_mib": round(own / 2**20, 1),
    }


def main(args: Args) -> None:
    """Measures each row in a process of its own."""
    wanted = [
        *(Row(candidates=number) for number in args.candidates),
        *(Row(devices=number) for number in args.devices),
        *(Row(nodes=number) for number in args.nodes),
    ]
    found = []
    for row in dict.fromkeys(wanted):
        command = [sys.executable, __file__, json.dumps(asdict(row))]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE)
        figures = json.loads(done.stdout)
        found.append(figures)
        line = "  ".join(f"{name} {value}" for name, value in figures.items())
        print(line, flush=True)
    if args.json:
        print(json.dumps({"rows": found}))


if __name__ == "__main__":
    is_row = sys.argv[1:2] and sys.argv[1].startswith("{")
    if is_row:
        print(json.dumps(measure(Row(**json.loads(sys.argv[1])))))
    else:
        main(tyro.cli(Args))
