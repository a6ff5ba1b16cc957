"""Chooses the chunk and the form of a target: the one place for both."""

import jax

from jaxhypernas.execution.config import ExecutionConfig
from jaxhypernas.numerics import cpu
from jaxhypernas.types import Target, UserError

SMALL_WEIGHTS = 1_000_000
"""Networks of up to so many weights leave a GPU idle, unless many run at once."""

SMALL_CHUNK, LARGE_CHUNK = 32, 8
"""Candidates side by side on a GPU, of small networks and of larger ones."""


def choose(
    config: ExecutionConfig, target: Target, platform: str
) -> tuple[int, str, Target]:
    """Chooses how candidates run on a platform.

    Measured, or estimated by compilers (experiments/LOG.md): on CPU one candidate at a
    time stays in cache, its cells as C++ where there is a compiler, else branching; on
    TPU one at a time, fused where ops can be; on GPU small kernels one after the other
    would leave the device idle, so many run side by side, which computes every branch
    where ops cannot be fused.

    Args:
        config: The user's choice.
        target: The networks, with their forms.
        platform: "cpu", "tpu" or "gpu".

    Returns:
        The chunk, the name of the form, and the target in that form.

    Raises:
        UserError: The space, or this machine, does not have the form.
    """
    form = _form(config, target, platform)
    chunk = config.chunk or _chunk(target, platform)
    return chunk, form, target.forms.get(form, target)


def _chunk(target: Target, platform: str) -> int:
    if platform != "gpu":
        return 1
    weights = sum(leaf.size for leaf in jax.tree.leaves(target.weight_spec))
    return SMALL_CHUNK if weights <= SMALL_WEIGHTS else LARGE_CHUNK


def _form(config: ExecutionConfig, target: Target, platform: str) -> str:
    has_native = platform == "cpu" and cpu.available()
    if config.form == "auto":
        best = "fused"
        if platform == "cpu":
            best = "native" if has_native else "branch"
        return best if best in target.forms else "branch"
    if config.form != "branch" and config.form not in target.forms:
        raise UserError(
            f"execution.form: the cells of this space have no form {config.form}: "
            "set it to branch"
        )
    if config.form == "native" and not has_native:
        raise UserError(
            "execution.form: native needs a CPU and a C++ compiler (CXX, or c++): "
            "set it to branch"
        )
    return config.form
