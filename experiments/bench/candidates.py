"""How fast do many different architectures run, against what a user would write instead?

Claim (two CPU cores): the library's choice of chunk and form scores candidates 6, 2 and 1.5 times as fast as a PyTorch
loop over modules (tiny, proxy, full) and trains them 4 and 1.4 times as fast (tiny, proxy); it scores 8 and 20 times as
fast as a `jax.vmap` of `lax.switch` and trains 10 times as fast.
Command: python experiments/bench/candidates.py [--shapes tiny proxy full] [--modes score train] [--json]. Needs the
extra `bench`. NAS-Bench-201's cells, random architectures, another set of weights for each, the same for all schemes,
in the order in which scoring deals them to devices.
Every scheme is compiled first; then all run in turns, three times or until that took 30 seconds, and the fastest
counts. Useful FLOPs are those of the ops that an architecture chose; training counts three times the forward pass. The
naive scheme trains the first two candidates on the first eight images only; what compiles each architecture alone does
it for the first three and trains on as few images: its rates are scaled to the average candidate's FLOPs.
Peak: the fastest product of large matrices here. Memory: by how much the process grows at most while the scheme runs
(Linux).
"""

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import torch
import tyro
from networks import jax_network
from torch_networks import TorchNetwork

from jaxhypernas import spaces
from jaxhypernas.execution import candidates as predict
from jaxhypernas.execution.mesh import make_mesh
from jaxhypernas.generators import standalone
from jaxhypernas.numerics.nn import cross_entropy
from jaxhypernas.spaces.nasbench201 import STRUCTURE, choices
from jaxhypernas.targets import cell_network

ENOUGH_S = 30


class Shape(NamedTuple):
    image: tuple[int, int, int]
    channels: int
    cells: int
    batch: int
    candidates: int


SHAPES = {
    "tiny": Shape((8, 8, 1), 8, 1, 32, 100),
    "proxy": Shape((32, 32, 3), 8, 1, 64, 20),
    "full": Shape((32, 32, 3), 16, 5, 64, 8),
}


@dataclass(frozen=True)
class Args:
    shapes: tuple[str, ...] = tuple(SHAPES)
    modes: tuple[str, ...] = ("score", "train")
    schemes: tuple[str, ...] = ()  # of those in `schemes`; none: all
    repeats: int = 3
    json: bool = False  # one JSON object as the last line


class Scheme(NamedTuple):
    run: Callable[[], Any]
    work: float  # candidates x images per run
    compile_s: float


class Case(NamedTuple):
    """Candidates to run, and on what."""

    target: Any
    archs: Any
    choice_Ax6: np.ndarray
    theta: Any  # leading axis A
    x: jax.Array
    y: jax.Array
    flops_A: np.ndarray  # useful ones, per image

    @property
    def population(self):
        return self.theta, self.archs


def make_case(shape: Shape) -> Case:
    space = spaces.nasbench201(shape.image, 10, shape.channels, shape.cells)
    target = cell_network(
        STRUCTURE,
        spaces.CellConfig(shape.channels, shape.cells),
        shape.image,
        10,
    )
    keys = jax.random.split(jax.random.key(0), shape.candidates)
    archs = jax.device_get(jax.vmap(lambda key: space.sample(key, 1.0))(keys))
    dealt = np.concatenate(
        predict.deal(space.cost(archs).flops, jax.device_count())
    )  # as scoring does
    archs = jax.tree.map(lambda x: x[dealt], archs)
    theta = jax.jit(
        jax.vmap(standalone(target.weight_spec, target.nodes).init)
    )(keys)
    x = jax.random.normal(jax.random.key(2), (shape.batch, *shape.image))
    y = jax.random.randint(jax.random.key(3), (shape.batch,), 0, 10)
    flops_A = 2 * space.cost(archs).flops
    return Case(target, archs, np.asarray(choices(archs)), theta, x, y, flops_A)


def loss(apply, mode: str):
    """(theta, arch, x, y) -> the loss, or with its gradient."""

    def value(theta, arch, x, y):
        return cross_entropy(apply(theta, arch, x), y)

    return value if mode == "score" else jax.value_and_grad(value)


def compiled(f, work: float, *args) -> Scheme:
    began = time.perf_counter()
    program = jax.jit(f).lower(*args).compile()
    return Scheme(lambda: program(*args), work, time.perf_counter() - began)


def ours(case: Case, mode: str, execution: predict.ExecutionConfig) -> Scheme:
    chunk, _, target = predict.choose(
        execution, case.target, jax.default_backend()
    )

    def local(batch, population):
        return predict.map_candidates(
            lambda p: loss(target.apply, mode)(*p, *batch), population, chunk
        )

    run = predict.split_candidates(make_mesh(), local)
    return compiled(
        run,
        len(case.choice_Ax6) * len(case.y),
        (case.x, case.y),
        case.population,
    )


def naive(case: Case, mode: str) -> Scheme:
    candidates, images = (
        (len(case.choice_Ax6), len(case.y)) if mode == "score" else (2, 8)
    )
    some = jax.tree.map(lambda v: v[:candidates], (case.theta, case.choice_Ax6))
    run = jax.vmap(loss(jax_network, mode), (0, 0, None, None))
    return compiled(
        run, candidates * images, *some, case.x[:images], case.y[:images]
    )


def jit_each(case: Case, mode: str) -> Scheme:
    """One program per architecture; the gradient on the first eight images, as XLA's is slow."""
    images = len(case.y) if mode == "score" else 8
    programs = []
    for i, choice in enumerate(case.choice_Ax6[:3].tolist()):
        theta = jax.tree.map(lambda v, i=i: v[i], case.theta)

        def alone(theta, x, y, choice=tuple(choice)):
            return loss(jax_network, mode)(theta, choice, x, y)

        work = images * case.flops_A[i] / case.flops_A.mean()
        programs.append(
            compiled(alone, work, theta, case.x[:images], case.y[:images])
        )
    compile_s = sum(p.compile_s for p in programs)
    return Scheme(
        lambda: [p.run() for p in programs],
        sum(p.work for p in programs),
        compile_s,
    )


def torch_loop(case: Case, mode: str) -> Scheme:
    host = jax.tree.map(np.asarray, case.theta)
    nets = [
        TorchNetwork(jax.tree.map(lambda v, i=i: v[i], host), c)
        for i, c in enumerate(case.choice_Ax6)
    ]
    images = torch.from_numpy(np.array(case.x)).permute(
        0, 3, 1, 2
    )  # in memory: channels last
    labels = torch.from_numpy(np.array(case.y)).long()

    def score():
        with torch.inference_mode():
            return [
                torch.nn.functional.cross_entropy(net(images), labels).item()
                for net in nets
            ]

    def train():
        for net in nets:
            net.zero_grad(set_to_none=True)
            torch.nn.functional.cross_entropy(net(images), labels).backward()

    same = ours(case, "score", predict.ExecutionConfig()).run()
    np.testing.assert_allclose(score(), np.asarray(same), rtol=2e-3, atol=2e-3)
    return Scheme(
        score if mode == "score" else train, len(nets) * len(labels), 0.0
    )


def side_by_side(form):
    return lambda case, mode: ours(case, mode, predict.ExecutionConfig(4, form))


SCHEMES: dict[str, Callable[[Case, str], Scheme]] = {
    "ours": lambda case, mode: ours(case, mode, predict.ExecutionConfig()),
    "chunk 1, native": lambda case, mode: ours(
        case, mode, predict.ExecutionConfig(1, "native")
    ),
    "chunk 1, branch": lambda case, mode: ours(
        case, mode, predict.ExecutionConfig(1, "branch")
    ),
    "chunk 1, fused": lambda case, mode: ours(
        case, mode, predict.ExecutionConfig(1, "fused")
    ),
    "chunk 4, branch": side_by_side("branch"),
    "chunk 4, fused": side_by_side("fused"),
    "naive": naive,
    "jit each": jit_each,
    "torch": torch_loop,
}


def peak_gflops() -> float:
    a = jnp.ones((2048, 2048))
    product = compiled(jnp.matmul, 1, a, a)
    return 2 * 2048**3 / min(seconds(product) for _ in range(10)) / 1e9


def seconds(scheme: Scheme) -> float:
    began = time.perf_counter()
    jax.block_until_ready(scheme.run())
    return time.perf_counter() - began


def peak_mib(scheme: Scheme) -> float:
    """By how much the process grows at most while the scheme runs."""

    def status(field):
        line = next(
            x
            for x in Path("/proc/self/status").read_text().splitlines()
            if x.startswith(field)
        )
        return int(line.split()[1]) / 1024

    Path("/proc/self/clear_refs").write_text("5")
    before = status("VmRSS")
    jax.block_until_ready(scheme.run())
    return max(status("VmHWM") - before, 0.0)


def measure(name: str, mode: str, args: Args, peak: float) -> dict[str, dict]:
    case = make_case(SHAPES[name])
    flops = case.flops_A.mean() * (1 if mode == "score" else 3)
    schemes = {
        scheme: SCHEMES[scheme](case, mode)
        for scheme in args.schemes or SCHEMES
    }
    memory = {
        scheme: peak_mib(of) for scheme, of in schemes.items()
    }  # the first run of each
    times: dict[str, list[float]] = {scheme: [] for scheme in schemes}
    for _ in range(args.repeats):
        for scheme, of in schemes.items():
            if sum(times[scheme]) < ENOUGH_S:
                times[scheme].append(seconds(of))
    rows = {}
    for scheme, of in schemes.items():
        rate = of.work / min(times[scheme])
        gflops = rate * flops / 1e9
        rows[f"{name}/{mode}/{scheme}"] = {
            "images_candidates_per_s": round(rate, 1),
            "gflops": round(gflops, 2),
            "share_of_peak": round(gflops / peak, 3),
            "peak_mib": round(memory[scheme]),
            "compile_s": round(of.compile_s, 1),
        }
        print(
            f"{name + '/' + mode + '/' + scheme:28} {rate:10,.0f} {gflops:8.1f} {gflops / peak:6.0%} "
            f"{memory[scheme]:7.0f} {of.compile_s:7.1f}",
            flush=True,
        )
    return rows


def main(args: Args) -> None:
    peak = peak_gflops()
    print(
        f"peak {peak:.0f} GFLOP/s; {jax.device_count()} {jax.devices()[0].device_kind} device(s)"
    )
    print(
        f"{'':28} {'img*cand/s':>10} {'GFLOP/s':>8} {'peak':>6} {'MiB':>7} {'compile':>7}"
    )
    rows: dict[str, dict] = {}
    for name in args.shapes:
        for mode in args.modes:
            rows |= measure(name, mode, args, peak)
    ratios = []
    for case, row in rows.items():
        start, _, scheme = case.rpartition("/")
        if scheme in ("torch", "naive") and f"{start}/ours" in rows:
            ratio = (
                rows[f"{start}/ours"]["images_candidates_per_s"]
                / row["images_candidates_per_s"]
            )
            ratios.append({"case": case, "ratio": round(ratio, 2)})
            print(f"{case}: {ratio:.1f}x")
    if args.json:
        print(
            json.dumps(
                {"peak_gflops": round(peak, 1), "rows": rows, "ratios": ratios}
            )
        )


if __name__ == "__main__":
    jax.config.update("jax_num_cpu_devices", 2)
    main(tyro.cli(Args))
