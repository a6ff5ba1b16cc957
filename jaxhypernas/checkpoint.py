"""Checkpoints by orbax, with a checksum per leaf: orbax alone restores a flipped byte silently.

Each step is a directory that holds the state and a record: its loss, the dtype, shape and checksum of each leaf, and a
checksum of all that. Orbax writes both under a temporary name and then renames them, so a killed save leaves no step.
"""

import json
import math
import sys
import zlib
from collections.abc import Callable, Iterable
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from etils.epath import Path, PathLike

from jaxhypernas.types import UserError


def _print_to_stderr(line: str) -> None:
    print(line, file=sys.stderr)


def _leaves(tree: Any) -> dict[str, Any]:
    return {jax.tree_util.keystr(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(tree)}


def _kind(leaf: Any) -> str:
    return f"{leaf.dtype}{list(leaf.shape)}"


def _checksum(leaf: Any) -> int:
    if jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        leaf = jax.random.key_data(leaf)
    return zlib.crc32(np.asarray(leaf).tobytes())


def _sealed(loss: float, leaves: dict[str, list]) -> dict[str, Any]:
    """The record of a step, with a checksum of its own: a flipped byte in a loss would make another step the best."""
    body = {"loss": loss, "leaves": leaves}
    return {**body, "crc32": zlib.crc32(json.dumps(body, sort_keys=True).encode())}


class _NewestTwoAndBest:
    """Orbax's policy of preservation, by losses that we read: orbax keeps its own metrics without a checksum.

    A step whose loss cannot be read is preserved too, and takes the place of no other.
    """

    def __init__(self, losses: dict[int, float]):
        self.losses = losses

    def should_preserve(self, checkpoints, *, context) -> list[bool]:
        known = sorted(info.step for info in checkpoints if info.step in self.losses)
        keep = {*known[-2:], min(known, key=self.losses.__getitem__, default=None)}
        return [info.step in keep or info.step not in self.losses for info in checkpoints]


class Checkpoints:
    """The checkpoints of one run: the newest, the one before it to fall back to, and the one of lowest loss.

    One process may have a directory open at a time. Use as a context manager, or call `close`.

    Args:
        directory: made if it does not exist; a finished step is the subdirectory of its number.
        report: called with one line for each damaged step.
    """

    def __init__(self, directory: PathLike, report: Callable[[str], None] = _print_to_stderr):
        directory, self._report = Path(directory), report
        self._directory = directory if directory.is_absolute() else directory.resolve()  # a URL would not survive it
        self._losses: dict[int, float] = {}
        options = ocp.CheckpointManagerOptions(
            preservation_policy=_NewestTwoAndBest(self._losses), cleanup_tmp_directories=True
        )
        self._manager = ocp.CheckpointManager(self._directory, options=options, item_names=("state", "record"))
        for step in self._manager.all_steps():
            try:
                self._losses[step] = _rankable(self._record(step)["loss"])
            except Exception:  # damaged: reported where it is restored
                continue

    def save(self, step: int, state: Any, loss: float) -> None:
        """Save in the background; the step is on disk after `wait`, `close` or the next `save`.

        The state may be donated or deleted as soon as this returns.

        Args:
            step: not yet saved.
            state: a pytree of arrays, typed PRNG keys among them, none of size 0.
            loss: what `restore_best` goes by, lower is better; NaN ranks last.

        Raises:
            UserError: this step is there already.
        """
        self.wait()
        if step in self._manager.all_steps():
            raise UserError(f"checkpoints: step {step} is already in {self._directory}: use another directory")
        record = _sealed(float(loss), {path: [_kind(x), _checksum(x)] for path, x in _leaves(state).items()})
        self._losses[step] = _rankable(record["loss"])
        # In a list, as orbax does not take a bare array.
        args = ocp.args.Composite(state=ocp.args.StandardSave([state]), record=ocp.args.JsonSave(record))
        self._manager.save(step, args=args, force=True)

    def restore(self, like: Any) -> tuple[int, Any] | None:
        """The newest whole step as (step, state), bit for bit as saved, or None if there are no steps.

        Newer steps that are damaged, or that hold other leaves than ``like``, are reported and renamed to
        ``<step>.damaged``.

        Args:
            like: a pytree of arrays or ShapeDtypeStructs, of the structure of the state. A leaf that has a sharding is
                restored with it, others to the first device.

        Raises:
            UserError: there are steps, and none is whole; all are left as they are.
        """
        self.wait()
        return self._first_whole(sorted(self._manager.all_steps(), reverse=True), like)

    def restore_best(self, like: Any) -> tuple[int, Any] | None:
        """As `restore`, for the step of lowest loss among those kept."""
        self.wait()
        # A step without a readable loss comes first: it may have been the best, so it is to be reported.
        order = sorted(self._manager.all_steps(), key=lambda step: (self._losses.get(step, -math.inf), step))
        return self._first_whole(order, like)

    def wait(self) -> None:
        """Block until what was saved is on disk."""
        self._manager.wait_until_finished()

    def close(self) -> None:
        """Wait, and free the threads; the object cannot be used afterwards."""
        self.wait()
        self._manager.close()

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, *_) -> None:
        self.close()

    def _first_whole(self, steps: Iterable[int], like: Any) -> tuple[int, Any] | None:
        problems = {}
        for step in steps:
            try:
                state = self._read(step, like)
            except Exception as error:  # whatever orbax and tensorstore raise for a damaged file
                problems[step] = " ".join(f"{error or type(error).__name__}".split())[:160]
                continue
            # Only now: if no step can be used the fault may be in ``like``, and all must stay as they are.
            for damaged, problem in problems.items():
                moved = self._set_aside(damaged)
                self._report(f"checkpoints: step {damaged} is damaged ({problem}): using {step}, moved it to {moved}")
            return step, state
        if problems:
            step, problem = next(iter(problems.items()))
            raise UserError(
                f"checkpoints: no step in {self._directory} can be used (step {step}: {problem}): "
                "use the configuration it was saved with, or delete the directory to start again"
            )
        return None

    def _read(self, step: int, like: Any) -> Any:
        leaves, saved = _leaves(like), self._record(step)["leaves"]
        for path in sorted({*leaves, *saved}):
            kinds = [saved[path][0] if path in saved else "absent", _kind(leaves[path]) if path in leaves else "absent"]
            if kinds[0] != kinds[1]:
                raise ValueError(f"leaf {path} is {kinds[0]}, expected {kinds[1]}")
        first = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
        abstract = jax.tree.map(
            lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=getattr(x, "sharding", None) or first), like
        )
        args = ocp.args.Composite(state=ocp.args.StandardRestore([abstract]))
        state = self._manager.restore(step, args=args)["state"][0]
        for path, leaf in _leaves(state).items():
            if [_kind(leaf), _checksum(leaf)] != saved[path]:
                raise ValueError(f"leaf {path} differs from its checksum")
        return state

    def _record(self, step: int) -> dict[str, Any]:
        try:
            record = self._manager.restore(step, args=ocp.args.Composite(record=ocp.args.JsonRestore()))["record"]
            if record == _sealed(record["loss"], record["leaves"]):
                return record
        except Exception as error:
            raise ValueError(f"its record of checksums cannot be read: {error}") from error
        raise ValueError("its record of checksums is wrong")

    def _set_aside(self, step: int) -> str:
        """Rename a damaged step, so that it is neither the newest nor in the way of a later save; its new name."""
        path = self._directory / str(step)
        moved = path.with_name(f"{step}.damaged")
        while moved.exists():
            moved = moved.with_name(f"{moved.name}+")
        path.rename(moved)
        self._losses.pop(step, None)
        self._manager.reload()
        return moved.name


def _rankable(loss: float) -> float:
    return math.inf if math.isnan(loss) else loss
