"""How fast do many different architectures run, against what a user would write instead?

Claim (two CPU cores): the library's own choice of chunk and form scores candidates 6, 2 and 1.5 times as fast as a
PyTorch loop over modules (tiny, proxy, full) and trains them 4 and 1.4 times as fast (tiny, proxy); 8 and 20 times and
10 times as fast as a `jax.vmap` of `lax.switch`.
Command: python experiments/bench/candidates.py [--shapes tiny proxy full] [--modes score train] [--json]. Needs the
extra `bench`. NAS-Bench-201's cells, random architectures, another set of weights for each, the same for all. Every
scheme is compiled first; then all are timed in turns and the best of three counts. Useful FLOPs are those of the ops
that an architecture chose; training counts three times the forward pass. Peak: the best product of large matrices here.
Memory: what the process grew by at most while the scheme ran. What would run for minutes (the naive gradients) is
timed once on the first few candidates, and so is what compiles each architecture alone.
"""

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import torch
import tyro
from networks import TorchNetwork, jax_network

from jaxhypernas import predict, spaces
from jaxhypernas.mesh import make_mesh
from jaxhypernas.nn import cross_entropy
from jaxhypernas.spaces.nasbench201 import STRUCTURE, choices
from jaxhypernas.targets import cell_network


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
    repeats: int = 3
    json: bool = False  # one JSON object as the last line


class Scheme(NamedTuple):
    run: Callable[[], object]
    candidates: int
    repeats: int


def peak_gflops() -> float:
    a = jnp.ones((2048, 2048))
    product = jax.jit(jnp.matmul)
    jax.block_until_ready(product(a, a))
    times = []
    for _ in range(10):
        began = time.perf_counter()
        jax.block_until_ready(product(a, a))
        times.append(time.perf_counter() - began)
    return 2 * 2048**3 / min(times) / 1e9


def _status(field: str) -> float:
    line = next(x for x in Path("/proc/self/status").read_text().splitlines() if x.startswith(field))
    return int(line.split()[1]) / 1024


def peak_mib(run: Callable[[], object]) -> float:
    """MiB by which the process grows at most while it runs (Linux)."""
    Path("/proc/self/clear_refs").write_text("5")
    before = _status("VmRSS")
    jax.block_until_ready(run())
    return max(_status("VmHWM") - before, 0.0)


def make_schemes(shape: Shape, mode: str, repeats: int, only=None) -> tuple[dict[str, Scheme], float]:
    """Each way of running the candidates, compiled, by name; useful FLOPs per candidate."""
    space = spaces.nasbench201(shape.image, 10, shape.channels, shape.cells)
    config = spaces.CellConfig(shape.channels, shape.cells)
    target = cell_network(STRUCTURE, config, shape.image, 10)
    A = shape.candidates
    archs = jax.vmap(lambda key: space.sample(key, 1.0))(jax.random.split(jax.random.key(0), A))
    choice_Ax6 = np.asarray(choices(archs))
    theta = jax.jit(jax.vmap(partial(_weights, target.weight_spec)))(jax.random.split(jax.random.key(1), A))
    x = jax.random.normal(jax.random.key(2), (shape.batch, *shape.image))
    y = jax.random.randint(jax.random.key(3), (shape.batch,), 0, 10)
    flops = float(space.cost(jax.tree.map(np.asarray, archs)).flops.mean()) * 2 * shape.batch
    mesh = make_mesh()

    def one(apply):
        def loss(theta, arch, x, y):
            return cross_entropy(apply(theta, arch, x), y)

        return loss if mode == "score" else jax.value_and_grad(loss)

    def ours(chunk, target=target, mesh=mesh):
        f = one(target.apply)

        def local(batch, population):
            return predict.map_candidates(lambda p: f(*p, *batch), population, chunk)

        program = jax.jit(predict.split_candidates(mesh, local))
        return Scheme(lambda: program((x, y), (theta, archs)), A, repeats)

    def naive():
        number = A if mode == "score" else {"tiny": 8, "proxy": 4, "full": 2}[_name(shape)]
        program = jax.jit(jax.vmap(one(jax_network), (0, 0, None, None)))
        some = jax.tree.map(lambda v: v[:number], (theta, choice_Ax6))
        return Scheme(lambda: program(*some, x, y), number, repeats if mode == "score" else 1)

    def alone():
        number = min(A, 3)
        programs = [
            (jax.jit(lambda theta, x, y, c=c: one(jax_network)(theta, c, x, y)), i)
            for i, c in enumerate(map(tuple, choice_Ax6[:number].tolist()))
        ]
        each = [jax.tree.map(lambda v, i=i: v[i], theta) for i in range(number)]
        return Scheme(lambda: [f(each[i], x, y) for f, i in programs], number, repeats if mode == "score" else 1)

    def torch_loop():
        host = jax.tree.map(np.asarray, theta)
        nets = [TorchNetwork(jax.tree.map(lambda v, i=i: v[i], host), choice_Ax6[i]) for i in range(A)]
        images = torch.from_numpy(np.array(x)).permute(0, 3, 1, 2)
        labels = torch.from_numpy(np.array(y)).long()

        def score():
            with torch.inference_mode():
                return [torch.nn.functional.cross_entropy(net(images), labels) for net in nets]

        def train():
            for net in nets:
                net.zero_grad(set_to_none=True)
                torch.nn.functional.cross_entropy(net(images), labels).backward()

        _check(score(), jax.jit(lambda: jax.lax.map(lambda p: one_loss(target.apply)(*p, x, y), (theta, archs)))())
        return Scheme(score if mode == "score" else train, A, repeats)

    def one_loss(apply):
        return lambda theta, arch, x, y: cross_entropy(apply(theta, arch, x), y)

    makers = {
        "ours": lambda: ours(predict.default_chunk()),
        "chunk 1": lambda: ours(1, mesh=_single()),
        "chunk 4": lambda: ours(4 if A % 8 == 0 else 5),
        "naive": naive,
        "jit each": alone,
        "torch": torch_loop,
    }
    return {name: maker() for name, maker in makers.items() if only is None or name in only}, flops * (
        1 if mode == "score" else 3
    )


def _single():
    types = (jax.sharding.AxisType.Auto,) * 2
    return jax.make_mesh((1, 1), ("arch", "data"), axis_types=types, devices=jax.devices()[:1])


def _name(shape):
    return next(name for name, other in SHAPES.items() if other == shape)


def _weights(spec, key):
    """He normal kernels, zero vectors."""
    leaves, treedef = jax.tree.flatten(spec)
    keys = jax.random.split(key, len(leaves))

    def leaf(key, s):
        fan_in = np.prod(s.shape[-4:-1] if len(s.shape) > 4 else s.shape[:-1])
        return jnp.zeros(s.shape) if len(s.shape) == 1 else jax.random.normal(key, s.shape) * np.sqrt(2 / fan_in)

    return treedef.unflatten([leaf(k, s) for k, s in zip(keys, leaves, strict=True)])


def _check(torch_losses, losses):
    """All schemes compute the same thing."""
    np.testing.assert_allclose(np.array([float(v) for v in torch_losses]), np.asarray(losses), rtol=1e-3, atol=1e-3)


def measure(name: str, mode: str, args: Args, peak: float) -> list[dict]:
    shape = SHAPES[name]
    schemes, flops = make_schemes(shape, mode, args.repeats)
    compile_s, memory, times = {}, {}, {scheme: [] for scheme in schemes}
    for scheme, (run, _, _) in schemes.items():
        began = time.perf_counter()
        jax.block_until_ready(run())
        compile_s[scheme] = time.perf_counter() - began
    for turn in range(args.repeats):
        for scheme, (run, _, repeats) in schemes.items():
            if turn < repeats:
                began = time.perf_counter()
                jax.block_until_ready(run())
                times[scheme].append(time.perf_counter() - began)
    rows = []
    for scheme, (run, number, _) in schemes.items():
        seconds = min(times[scheme]) / number
        memory[scheme] = peak_mib(run) if len(times[scheme]) > 1 else float("nan")
        row = {
            "case": f"{name}/{mode}/{scheme}",
            "images_candidates_per_s": shape.batch / seconds,
            "gflops": flops / seconds / 1e9,
            "share_of_peak": flops / seconds / 1e9 / peak,
            "first_call_s": compile_s[scheme],
            "peak_mib": memory[scheme],
        }
        rows.append(row)
        print(
            f"{row['case']:24} {row['images_candidates_per_s']:10,.0f} {row['gflops']:8.1f} "
            f"{row['share_of_peak']:6.0%} {row['peak_mib']:9.0f} {row['first_call_s']:8.1f}",
            flush=True,
        )
    return rows


def main(args: Args) -> None:
    peak = peak_gflops()
    print(f"peak {peak:.0f} GFLOP/s; {jax.device_count()} {jax.devices()[0].device_kind} device(s)")
    print(f"{'case':24} {'img*cand/s':>10} {'GFLOP/s':>8} {'peak':>6} {'MiB':>9} {'first s':>8}")
    rows = [row for name in args.shapes for mode in args.modes for row in measure(name, mode, args, peak)]
    speed = {row["case"]: row["images_candidates_per_s"] for row in rows}
    ratios = [
        {
            "case": f"{name}/{mode}/{other}",
            "ratio": round(speed[f"{name}/{mode}/ours"] / speed[f"{name}/{mode}/{other}"], 2),
        }
        for name in args.shapes
        for mode in args.modes
        for other in ("torch", "naive")
    ]
    for ratio in ratios:
        print(f"{ratio['case']}: {ratio['ratio']}x")
    if args.json:
        print(json.dumps({"peak_gflops": round(peak, 1), "rows": rows, "ratios": ratios}))


if __name__ == "__main__":
    jax.config.update("jax_num_cpu_devices", 2)
    main(tyro.cli(Args))
