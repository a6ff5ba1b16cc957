"""Cells of target networks as C++ for one CPU core, compiled where they first run; XLA calls them.

XLA runs a cell as many small operations, each of which reads and writes whole activations. Here a node's ReLU,
convolution and BatchNorm pass over an image while it is in cache, and only the chosen ops of a node exist. The same
function as `targets.cell` has for all platforms, to rounding; float32 and float64. A C++ compiler is needed (`CXX`, or
c++).
"""

import ctypes
import functools
import hashlib
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import jax
import numpy as np

SOURCES = Path(__file__).parent
FLAGS = ("-std=c++17", "-O3", "-march=native", "-shared", "-fPIC", "-w")
NAMES = ("cell", "cell_grad", "conv_norm", "conv_norm_dx", "conv_norm_dw")
VECTOR = 32  # bytes


@functools.cache
def available() -> bool:
    """Whether the functions below run here: compiles them where that has not been done, once per machine and version.

    That takes about ten seconds; without a compiler, or where it fails, the answer is no.
    """
    compiler = shutil.which(os.environ.get("CXX", "c++"))
    if compiler is None:
        return False
    try:  # a home that can't be written, a compiler that doesn't know a flag: there is another form
        library = ctypes.CDLL(str(_compiled(compiler)))
    except (OSError, subprocess.CalledProcessError):
        return False
    for name in NAMES:
        handler = jax.ffi.pycapsule(getattr(library, f"jaxhypernas_{name}"))
        jax.ffi.register_ffi_target(
            f"jaxhypernas_{name}", handler, platform="cpu"
        )
    return True


def _compiled(compiler: str) -> Path:
    """The library, from the user's cache or compiled into it."""
    command = [compiler, *FLAGS, f"-I{jax.ffi.include_dir()}"]
    # Homes are shared between machines: the compiler's macros name its version and the processor's instructions.
    macros = subprocess.run(
        [compiler, *FLAGS, "-dM", "-E", "-x", "c++", os.devnull],
        capture_output=True,
        check=True,
    )
    sources = b"".join(
        p.read_bytes()
        for p in sorted(SOURCES.iterdir())
        if p.suffix in (".h", ".cc")
    )
    key = hashlib.sha256(
        b"\0".join((sources, macros.stdout, jax.__version__.encode()))
    ).hexdigest()[:16]
    cache = (
        Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache"))
        / "jaxhypernas"
    )
    path = cache / f"cpu-{key}.so"
    if not path.exists():
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(
            dir=cache
        ) as part:  # another process never sees half of it
            made = Path(part) / path.name
            subprocess.run(
                [*command, str(SOURCES / "cell.cc"), "-o", str(made)],
                capture_output=True,
                check=True,
            )
            made.replace(path)
    return path


def _call(name: str, results, *args, **attributes):
    return jax.ffi.ffi_call(
        f"jaxhypernas_{name}", results, vmap_method="sequential"
    )(*args, **attributes)


def _like(
    x: jax.Array, shape: tuple[int, ...] | None = None
) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(x.shape if shape is None else shape, x.dtype)


def cell_states(
    ops: np.ndarray,
    write_N: np.ndarray,
    op_NxO,
    read_NxS,
    weights: list[jax.Array],
    inputs_IxBxHxWxC,
):
    """All states of a cell, S x B x H x W x C.

    Args:
        ops: int64, the ops of the space: kind (0 skip, 1 average pool, 2 max pool, 3 layers), number of layers, then
            for each layer the kernel size and dilation of a depthwise convolution (0, 0 if it has none), height and
            width of the dense one.
        write_N: int64, the state that each node writes.
        op_NxO: int32, 1 where the node applies the op.
        read_NxS: int32, how often the node reads the state.
        weights: N x ..., of all layers of all ops in order, each depthwise before dense.
    """
    shape = (read_NxS.shape[1], *inputs_IxBxHxWxC.shape[1:])
    return _call(
        "cell",
        _like(inputs_IxBxHxWxC, shape),
        op_NxO,
        read_NxS,
        inputs_IxBxHxWxC,
        *weights,
        write=write_N,
        ops=ops,
    )


def cell_states_grad(
    ops,
    write_N,
    op_NxO,
    read_NxS,
    weights,
    inputs,
    states_SxBxHxWxC,
    g_SxBxHxWxC,
):
    """Gradients of `cell_states` with respect to inputs and weights; 0 for those of ops that aren't chosen."""
    results = [
        _like(states_SxBxHxWxC, (inputs, *states_SxBxHxWxC.shape[1:])),
        *map(_like, weights),
    ]
    args = (op_NxO, read_NxS, states_SxBxHxWxC, g_SxBxHxWxC, *weights)
    g_inputs, *g_weights = _call(
        "cell_grad", results, *args, write=write_N, ops=ops
    )
    return g_inputs, g_weights


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def conv_norm(
    x_BxHxWxI: jax.Array, w_KxLxIxO: jax.Array, stride: int, relu: bool
) -> jax.Array:
    """`nn.batch_norm` of `nn.conv` of the images, or of their ReLU."""
    return _conv_norm_fwd(x_BxHxWxI, w_KxLxIxO, stride, relu)[0]


def _conv_norm_fwd(x, w, stride, relu):
    (B, H, W, _), O = x.shape, w.shape[3]
    image = B, -(-H // stride), -(-W // stride)
    padded = -(-O * x.dtype.itemsize // VECTOR) * VECTOR // x.dtype.itemsize
    results = [
        _like(x, shape)
        for shape in ((*image, O), (*image, padded), (padded,), (padded,))
    ]
    z, *kept = _call(
        "conv_norm", results, x, w, stride=np.int64(stride), relu=relu
    )
    return z, (x, w, kept)


def _conv_norm_bwd(stride, relu, residuals, g):
    # Two calls: XLA drops the one whose result nobody wants, as that with respect to images.
    x, w, kept = residuals
    how = {"stride": np.int64(stride), "relu": relu}
    return _call("conv_norm_dx", _like(x), x, w, *kept, g, **how), _call(
        "conv_norm_dw", _like(w), x, *kept, g, **how
    )


conv_norm.defvjp(_conv_norm_fwd, _conv_norm_bwd)
