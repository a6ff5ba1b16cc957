"""Compiles the C++ of this folder, loads it and registers its functions with XLA."""

import ctypes
import functools
import hashlib
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import jax

from jaxhypernas.numerics.cpu import cache

SOURCES = Path(__file__).parent
"""Folder of the C++ files."""

MAIN_SOURCE = "bindings.cc"
"""The file that is compiled; it includes the others."""

FLAGS = ("-std=c++17", "-O3", "-march=native", "-shared", "-fPIC", "-w")
"""Flags of the compiler."""

FUNCTIONS = ("cell", "cell_grad", "conv_norm", "conv_norm_dx", "conv_norm_dw")
"""Functions of the library that XLA calls; `MAIN_SOURCE` binds them."""


@functools.cache
def available() -> bool:
    """Whether the C++ runs here; compiles it if this machine has not done so yet.

    Compiling takes about ten seconds, once per machine and version.

    Returns:
        False where there is no compiler, or where compiling or loading fails; one line
        on standard error says why.
    """
    words = os.environ.get("CXX") or "c++"
    try:
        compiler = shlex.split(words)
        if not compiler or shutil.which(compiler[0]) is None:
            return _unavailable(f"there is no compiler {words}")
        # The compiler may be too old for a flag: networks then run in another form.
        library = ctypes.CDLL(str(_compiled(compiler)))
    except subprocess.CalledProcessError as error:
        lines = error.stderr.decode(errors="replace").split("\n")
        said = next((line for line in lines if "error" in line), "")
        return _unavailable(f"{words} fails: {said.strip()[:160]}")
    except (OSError, ValueError) as error:
        return _unavailable(str(error))

    for name in FUNCTIONS:
        symbol = f"jaxhypernas_{name}"
        handler = jax.ffi.pycapsule(getattr(library, symbol))
        jax.ffi.register_ffi_target(symbol, handler, platform="cpu")
    return True


def _unavailable(reason: str) -> bool:
    print(
        f"jaxhypernas: cells run in a slower form on this CPU ({reason})",
        file=sys.stderr,
    )
    return False


def _compiled(compiler: list[str]) -> Path:
    """Path of the library in the user's cache, where it is compiled if missing."""

    def compile_to(path: Path) -> None:
        command = [
            *compiler,
            *FLAGS,
            f"-I{jax.ffi.include_dir()}",
            str(SOURCES / MAIN_SOURCE),
            "-o",
            str(path),
        ]
        subprocess.run(command, capture_output=True, check=True)

    return cache.find(f"cpu-{_key(compiler)}.so", compile_to)


def _key(compiler: list[str]) -> str:
    """Hash of everything that the library depends on."""
    # Machines share homes: the compiler's macros name its version and the processor's
    # instructions.
    macros = subprocess.run(
        [*compiler, *FLAGS, "-dM", "-E", "-x", "c++", os.devnull],
        capture_output=True,
        check=True,
    )
    sources = [
        path.read_bytes()
        for path in sorted(SOURCES.iterdir())
        if path.suffix in (".h", ".cc")
    ]
    parts = [*sources, macros.stdout, jax.__version__.encode()]
    return hashlib.sha256(b"\0".join(parts)).hexdigest()[:16]


def call(
    function: str, results: Any, *args: jax.Array, **attributes: Any
) -> Any:
    """Calls a function of the library from a traced program.

    Args:
        function: One of `FUNCTIONS`.
        results: Shapes and types of its results, as ``jax.ShapeDtypeStruct``.
        *args: Its arrays.
        **attributes: Its static arguments.

    Returns:
        Arrays as in ``results``. Under ``vmap``, calls run one after the other.
    """
    run = jax.ffi.ffi_call(
        f"jaxhypernas_{function}", results, vmap_method="sequential"
    )
    return run(*args, **attributes)


def result_like(
    x: jax.Array, shape: tuple[int, ...] | None = None
) -> jax.ShapeDtypeStruct:
    """Describes a result of the type of an array.

    Args:
        x: The array.
        shape: Shape of the result; None: as the array.

    Returns:
        Shape and type, for `call`.
    """
    return jax.ShapeDtypeStruct(x.shape if shape is None else shape, x.dtype)
