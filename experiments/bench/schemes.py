"""Ways to run many different architectures of NAS-Bench-201: ours, and others' instead.

All schemes run the same candidates with the same weights on the same images.
"""

import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np
from networks import jax_network

from jaxhypernas.archs.population import rows
from jaxhypernas.archs.sizes import Nasbench201Config
from jaxhypernas.execution.candidates import (
    deal,
    map_candidates,
    split_candidates,
)
from jaxhypernas.execution.choice import choose
from jaxhypernas.execution.config import ExecutionConfig
from jaxhypernas.execution.mesh import make_mesh
from jaxhypernas.families import FAMILIES
from jaxhypernas.generators.standalone import standalone
from jaxhypernas.numerics.losses import cross_entropy
from jaxhypernas.spaces.nasbench201 import choices
from jaxhypernas.types import Arch, ImageShape, Params, Target

CLASSES = 10
FEW_IMAGES = 8
"""Images of a batch that a slow scheme trains on."""


class Shape(NamedTuple):
    """Sizes of a case."""

    image: ImageShape
    """Height, width and channels of an image."""

    channels: int
    """Channels of the first stage."""

    cells: int
    """Cells per stage."""

    batch: int
    """Images of the batch."""

    candidates: int
    """Number of architectures."""


class Case(NamedTuple):
    """Candidates, their weights and a batch of images."""

    target: Target
    """The networks, with their forms."""

    archs: Arch
    """The candidates, in the order in which scoring deals them to devices."""

    choice_Ax6: np.ndarray
    """Their ops, indices into EDGE_OPS."""

    theta: Params
    """Their weights, with a leading axis A."""

    x: jax.Array
    """Images B x H x W x C."""

    y: jax.Array
    """Labels B."""

    flops_A: np.ndarray
    """FLOPs per image of the ops that each candidate chose."""


class Scheme(NamedTuple):
    """A scheme, ready to run."""

    run: Callable[[], Any]
    """Runs all candidates once."""

    work: float
    """Candidates times images per run."""

    compile_s: float
    """Seconds that compiling took."""


def make_case(shape: Shape) -> Case:
    """Draws the candidates, weights and images of a case."""
    sizes = Nasbench201Config(shape.channels, shape.cells)
    space, target = FAMILIES["nasbench201"].build(sizes, shape.image, CLASSES)
    keys = jax.random.split(jax.random.key(0), shape.candidates)
    archs = jax.device_get(jax.vmap(lambda key: space.sample(key, 1.0))(keys))
    shares = deal(space.cost(archs).flops, jax.device_count())
    archs = rows(archs, np.concatenate(shares))
    init = standalone(target.weight_spec, target.nodes).init
    return Case(
        target=target,
        archs=archs,
        choice_Ax6=np.asarray(choices(archs)),
        theta=jax.jit(jax.vmap(init))(keys),
        x=jax.random.normal(jax.random.key(2), (shape.batch, *shape.image)),
        y=jax.random.randint(jax.random.key(3), (shape.batch,), 0, CLASSES),
        flops_A=2 * space.cost(archs).flops,
    )


def compiled(function: Callable, work: float, *arguments: Any) -> Scheme:
    """Compiles a function for its arguments."""
    began = time.perf_counter()
    program = jax.jit(function).lower(*arguments).compile()
    compile_s = time.perf_counter() - began
    return Scheme(lambda: program(*arguments), work, compile_s)


def ours(case: Case, mode: str, execution: ExecutionConfig) -> Scheme:
    """The library's: chunks of candidates, split over devices."""
    backend = jax.default_backend()
    chunk, _, target = choose(execution, case.target, backend)

    def local(batch, population):
        def one(candidate):
            return _loss(target.apply, mode)(*candidate, *batch)

        return map_candidates(one, population, chunk)

    run = split_candidates(make_mesh(), local)
    work = len(case.choice_Ax6) * len(case.y)
    return compiled(run, work, (case.x, case.y), (case.theta, case.archs))


def naive(case: Case, mode: str) -> Scheme:
    """`jax.vmap` of `lax.switch`; it trains only two candidates, on few images."""
    candidates, images = len(case.choice_Ax6), len(case.y)
    if mode == "train":
        candidates, images = 2, FEW_IMAGES
    some = rows((case.theta, case.choice_Ax6), slice(candidates))
    run = jax.vmap(_loss(jax_network, mode), (0, 0, None, None))
    work = candidates * images
    return compiled(run, work, *some, case.x[:images], case.y[:images])


def jit_each(case: Case, mode: str) -> Scheme:
    """A program for each of the first three candidates; it trains on few images."""
    images = len(case.y) if mode == "score" else FEW_IMAGES
    parts = []
    for i, choice in enumerate(case.choice_Ax6[:3].tolist()):
        theta = rows(case.theta, i)

        def alone(theta, x, y, choice=tuple(choice)):
            return _loss(jax_network, mode)(theta, choice, x, y)

        # As if it were a candidate of average FLOPs.
        work = images * case.flops_A[i] / case.flops_A.mean()
        x, y = case.x[:images], case.y[:images]
        parts.append(compiled(alone, work, theta, x, y))
    return Scheme(
        run=lambda: [part.run() for part in parts],
        work=sum(part.work for part in parts),
        compile_s=sum(part.compile_s for part in parts),
    )


def torch_loop(case: Case, mode: str) -> Scheme:
    """A Python loop over PyTorch modules; its losses must be ours."""
    import torch
    from torch_networks import TorchNetwork

    is_gpu = jax.default_backend() == "gpu"
    device = "cuda" if is_gpu else "cpu"
    host = jax.tree.map(np.asarray, case.theta)
    nets = [
        TorchNetwork(rows(host, i), choice).to(device)
        for i, choice in enumerate(case.choice_Ax6)
    ]
    # The strides stay: images are channels-last in memory.
    images = torch.from_numpy(np.array(case.x)).permute(0, 3, 1, 2).to(device)
    labels = torch.from_numpy(np.array(case.y)).long().to(device)
    loss = torch.nn.functional.cross_entropy

    def score():
        with torch.inference_mode():
            return torch.stack(
                [loss(net(images), labels) for net in nets]
            ).cpu()

    def train():
        for net in nets:
            net.zero_grad(set_to_none=True)
            loss(net(images), labels).backward()
        # The work of a GPU is done when the last gradient is here.
        return nets[-1].head.bias.grad.cpu()

    same = ours(case, "score", ExecutionConfig()).run()
    # GPUs multiply with 10 bits.
    error = 3e-2 if is_gpu else 2e-3
    np.testing.assert_allclose(
        score(), np.asarray(same), rtol=error, atol=error
    )
    run = score if mode == "score" else train
    return Scheme(run, len(nets) * len(labels), 0.0)


def _loss(apply: Callable, mode: str) -> Callable:
    """``loss(theta, arch, x, y)``; with its gradient if the mode is to train."""

    def loss(theta, arch, x, y):
        return cross_entropy(apply(theta, arch, x), y)

    return loss if mode == "score" else jax.value_and_grad(loss)


def _ours_as(chunk: int, form: Any) -> Callable[[Case, str], Scheme]:
    return lambda case, mode: ours(case, mode, ExecutionConfig(chunk, form))


SCHEMES: dict[str, Callable[[Case, str], Scheme]] = {
    "ours": _ours_as(0, "auto"),
    "chunk 1, native": _ours_as(1, "native"),
    "chunk 1, branch": _ours_as(1, "branch"),
    "chunk 1, fused": _ours_as(1, "fused"),
    "chunk 4, branch": _ours_as(4, "branch"),
    "chunk 4, fused": _ours_as(4, "fused"),
    "chunk 8, fused": _ours_as(8, "fused"),
    "chunk 32, fused": _ours_as(32, "fused"),
    "chunk 128, fused": _ours_as(128, "fused"),
    "naive": naive,
    "jit each": jit_each,
    "torch": torch_loop,
}
"""The schemes: ``make(case, "score" or "train")`` compiles them."""
