"""Checkpoints by orbax, with a checksum per leaf: orbax restores a flipped byte silently.

The newest and the best step are kept. A damaged step is moved aside and the one before it used.
"""

import sys
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from orbax.checkpoint import checkpoint_managers

from jaxhypernas.types import UserError


def _say(line: str) -> None:
    print(line, file=sys.stderr)


def _checksums(state: Any) -> dict[str, str]:
    """Path of each leaf -> dtype, shape and CRC of its bytes."""

    def one(leaf):
        if jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            leaf = jax.random.key_data(leaf)
        array = np.ascontiguousarray(leaf)
        return f"{array.dtype}{list(array.shape)}:{zlib.crc32(array.tobytes()):08x}"

    return {jax.tree_util.keystr(path): one(leaf) for path, leaf in jax.tree_util.tree_leaves_with_path(state)}


class Checkpoints:
    """The checkpoints of one run, a directory per step.

    Args:
        directory: made if it does not exist.
        report: called with one line for each damaged step.
    """

    def __init__(self, directory: Path, report: Callable[[str], None] = _say):
        self._directory, self._report = Path(directory).resolve(), report
        self._manager = self._open()

    def _open(self):
        keep = checkpoint_managers.AnyPreservationPolicy(
            [
                checkpoint_managers.LatestN(2),  # the newest, and one to fall back to
                checkpoint_managers.BestN(get_metric_fn=lambda m: m["loss"], reverse=True, n=1),
            ]
        )
        options = ocp.CheckpointManagerOptions(preservation_policy=keep, cleanup_tmp_directories=True)
        return ocp.CheckpointManager(self._directory, options=options, item_names=("state", "checksums"))

    def save(self, step: int, state: Any, loss: float) -> None:
        """Write in the background; `wait` or `close` make it durable."""
        args = ocp.args.Composite(
            state=ocp.args.StandardSave(state), checksums=ocp.args.JsonSave(_checksums(state))
        )
        self._manager.save(step, args=args, metrics={"loss": float(loss)}, force=True)

    def restore(self, like: Any) -> tuple[int, Any] | None:
        """The newest whole step as (step, state), or None if there is none.

        Args:
            like: a pytree of arrays or ShapeDtypeStructs: structure, shapes, dtypes and shardings to restore.

        Raises:
            UserError: there are steps, and all are damaged.
        """
        self.wait()
        steps = sorted(self._manager.all_steps(), reverse=True)
        abstract = jax.tree.map(ocp.utils.to_shape_dtype_struct, like)
        for step in steps:
            problem = None
            try:
                args = ocp.args.Composite(state=ocp.args.StandardRestore(abstract), checksums=ocp.args.JsonRestore())
                restored = self._manager.restore(step, args=args)
                if _checksums(restored["state"]) == restored["checksums"]:
                    return step, restored["state"]
                problem = "checksums differ"
            except Exception as error:  # whatever orbax or tensorstore raise for a damaged file
                problem = " ".join(f"{type(error).__name__}: {error}".split())[:120]
            self._set_aside(step, problem)
        if steps:
            raise UserError(f"workdir: every checkpoint in {self._directory} is damaged or of another config: start in a new one")
        return None

    def _set_aside(self, step: int, problem: str) -> None:
        """Move a damaged step to ``<step>.damaged``, so that it is neither the newest nor in the way of a later save."""
        self._report(f"checkpoint: step {step} is damaged, using the one before it ({problem})")
        self._manager.close()
        path = self._directory / str(step)
        names = (path.with_name(f"{step}.damaged{i or ''}") for i in range(1000))
        path.rename(next(p for p in names if not p.exists()))
        self._manager = self._open()

    def wait(self) -> None:
        self._manager.wait_until_finished()

    def close(self) -> None:
        self.wait()
        self._manager.close()
