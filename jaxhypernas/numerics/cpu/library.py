"""Compiles the C++ of this folder, loads it and registers its functions with XLA."""

import ctypes
import functools
import hashlib
import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import jax

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
        False where there is no compiler, or where compiling or loading fails.
    """
    compiler = shutil.which(os.environ.get("CXX", "c++"))
    if compiler is None:
        return False

    # The home may be read-only, or the compiler too old for a flag: networks then run
    # in another form.
    try:
        library = ctypes.CDLL(str(_compiled(compiler)))
    except (OSError, subprocess.CalledProcessError):
        return False

    for name in FUNCTIONS:
        symbol = f"jaxhypernas_{name}"
        handler = jax.ffi.pycapsule(getattr(library, symbol))
        jax.ffi.register_ffi_target(symbol, handler, platform="cpu")
    return True


def _compiled(compiler: str) -> Path:
    """Path of the library in the user's cache, where it is compiled if missing."""
    path = _cache() / f"cpu-{_key(compiler)}.so"
    if path.exists():
        return path
    path.parent.mkdir(parents=True, exist_ok=True)

    # Renaming a finished file means that no other process loads half a library.
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        made = Path(folder) / path.name
        command = [
            compiler,
            *FLAGS,
            f"-I{jax.ffi.include_dir()}",
            str(SOURCES / MAIN_SOURCE),
            "-o",
            str(made),
        ]
        subprocess.run(command, capture_output=True, check=True)
        made.replace(path)
    return path


def _cache() -> Path:
    home = os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")
    return Path(home) / "jaxhypernas"


def _key(compiler: str) -> str:
    """Hash of everything that the library depends on."""
    # Machines share homes: the compiler's macros name its version and the processor's
    # instructions.
    macros = subprocess.run(
        [compiler, *FLAGS, "-dM", "-E", "-x", "c++", os.devnull],
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
