"""How fast do many different architectures run, against the code one writes instead?

Claim: the library's choice of chunk and form scores candidates 6, 2 and 1.5 times as
fast as a PyTorch loop over modules (tiny, proxy, full) and trains them 4 and 1.4 times
as fast (tiny, proxy); it scores 8 and 20 times as fast as a `jax.vmap` of `lax.switch`
and trains 10 times as fast.
Command: python experiments/bench/candidates.py [--shapes tiny proxy full]
[--modes score train] [--json]. Needs the extra bench (PyTorch).
Hardware: two AVX-512 CPU cores; for the shape gpu, one GPU.
Numbers: scores 6.9, 2.9 and 1.5 times as fast as PyTorch, trains 5.8, 1.7 and 0.9 times
as fast; 20, 45 and 48 times as fast as naive, trains 18 and 12 times
(experiments/LOG.md).

Candidates: NAS-Bench-201's cells, random architectures, another set of weights for
each. Every scheme is compiled first; then all run in turns, three times or until that
took 30 seconds, and the fastest run counts. Useful FLOPs are those of the ops that an
architecture chose; training counts three times the forward pass. Schemes that run only
some candidates or images are scaled (see `schemes`). Peak: the fastest product of large
matrices on this machine. Memory: growth of the process while the scheme first runs
(Linux).
"""

import importlib.util
import json
import sys
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import tyro
from measures import Growth, seconds
from schemes import SCHEMES, Scheme, Shape, compiled, make_case

ENOUGH_S = 30

SHAPES = {
    "tiny": Shape((8, 8, 1), channels=8, cells=1, batch=32, candidates=100),
    "proxy": Shape((32, 32, 3), channels=8, cells=1, batch=64, candidates=20),
    "full": Shape((32, 32, 3), channels=16, cells=5, batch=64, candidates=8),
    "gpu": Shape((32, 32, 3), channels=16, cells=1, batch=128, candidates=256),
}


@dataclass(frozen=True)
class Args:
    """Arguments."""

    shapes: tuple[str, ...] = ("tiny", "proxy", "full")
    """sizes of networks and images"""

    modes: tuple[str, ...] = ("score", "train")
    """the loss, or the loss and its gradient"""

    schemes: tuple[str, ...] = (
        "ours",
        "chunk 1, branch",
        "chunk 1, fused",
        "naive",
        "jit each",
        "torch",
    )
    """ways to run candidates"""

    repeats: int = 3
    """largest number of runs"""

    json: bool = False
    """print one JSON object as the last line"""


def peak_gflops() -> float:
    """Returns the rate of the fastest product of large matrices."""
    size = 2048
    a = jnp.ones((size, size))
    product = compiled(jnp.matmul, 1, a, a)
    best = min(seconds(product.run) for _ in range(10))
    return 2 * size**3 / best / 1e9


def peak_mib(scheme: Scheme) -> float:
    """Returns the growth of the process while a scheme runs."""
    growth = Growth()
    seconds(scheme.run)
    return growth.mib()


def best_times(schemes: dict[str, Scheme], repeats: int) -> dict[str, float]:
    """Returns the seconds of each scheme's fastest run; schemes take turns."""
    times: dict[str, list[float]] = {name: [] for name in schemes}
    for _ in range(repeats):
        for name, scheme in schemes.items():
            if sum(times[name]) < ENOUGH_S:
                times[name].append(seconds(scheme.run))
    return {name: min(of_scheme) for name, of_scheme in times.items()}


def measure(name: str, mode: str, args: Args, peak: float) -> dict[str, dict]:
    """Returns the rows of a shape and mode by case, and prints them."""
    case = make_case(SHAPES[name])
    passes = 1 if mode == "score" else 3
    flops = case.flops_A.mean() * passes
    schemes = {scheme: SCHEMES[scheme](case, mode) for scheme in args.schemes}
    memory = {scheme: peak_mib(of) for scheme, of in schemes.items()}
    times = best_times(schemes, args.repeats)

    rows = {}
    for scheme, of in schemes.items():
        rate = of.work / times[scheme]
        gflops = rate * flops / 1e9
        label = f"{name}/{mode}/{scheme}"
        rows[label] = {
            "images_candidates_per_s": round(rate, 1),
            "gflops": round(gflops, 2),
            "share_of_peak": round(gflops / peak, 3),
            "peak_mib": round(memory[scheme]),
            "compile_s": round(of.compile_s, 1),
        }
        print(
            f"{label:28} {rate:10,.0f} {gflops:8.1f} {gflops / peak:6.0%} "
            f"{memory[scheme]:7.0f} {of.compile_s:7.1f}",
            flush=True,
        )
    return rows


def ratios(rows: dict[str, dict]) -> list[dict]:
    """Returns how many times as fast ours is as PyTorch and as the naive scheme."""
    found = []
    for label, row in rows.items():
        case, _, scheme = label.rpartition("/")
        here = rows.get(f"{case}/ours")
        if scheme not in ("torch", "naive") or here is None:
            continue
        rate = "images_candidates_per_s"
        ratio = here[rate] / row[rate]
        found.append({"case": label, "ratio": round(ratio, 2)})
    return found


def main(args: Args) -> None:
    """Prints the table and the ratios."""
    if "torch" in args.schemes and importlib.util.find_spec("torch") is None:
        sys.exit(
            "candidates: PyTorch is not installed: pip install -e '.[bench]' in the "
            "package's checkout, or name the --schemes without torch"
        )
    peak = peak_gflops()
    device = jax.devices()[0]
    print(
        f"peak {peak:.0f} GFLOP/s; {jax.device_count()} {device.device_kind} device(s)"
    )
    print(
        f"{'':28} {'img*cand/s':>10} {'GFLOP/s':>8} {'peak':>6} {'MiB':>7} "
        f"{'compile':>7}"
    )
    rows: dict[str, dict] = {}
    for name in args.shapes:
        for mode in args.modes:
            rows |= measure(name, mode, args, peak)
    found = ratios(rows)
    for row in found:
        print(f"{row['case']}: {row['ratio']:.1f}x")
    if args.json:
        result = {"peak_gflops": round(peak, 1), "rows": rows, "ratios": found}
        print(json.dumps(result))


if __name__ == "__main__":
    jax.config.update("jax_num_cpu_devices", 2)
    main(tyro.cli(Args))
