"""Checkpoints by orbax, with a checksum per leaf: orbax alone restores a flipped byte silently.

Each step is a directory that holds the state and a record: its loss, the dtype, shape and checksum of each leaf, and a
checksum of all that. Orbax writes both under a temporary name and then renames them, so a killed save leaves no step.

A state is the same on all devices of all processes. So the first process alone writes and reads it, as NumPy arrays,
and tells the others: the number of devices and processes makes no difference, when it is saved or restored.
"""

import json
import math
import os
import re
import sys
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from etils.epath import Path, PathLike

from jaxhypernas.hosts import processes
from jaxhypernas.types import UserError


def _print_to_stderr(line: str) -> None:
    print(line, file=sys.stderr)


def _leaves(tree: Any) -> dict[str, Any]:
    return {
        jax.tree_util.keystr(path): leaf
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
    }


def _kind(leaf: Any) -> str:
    return f"{leaf.dtype}{list(leaf.shape)}"


def _is_key(leaf: Any) -> bool:
    return jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def _numbers(leaf: Any) -> np.ndarray:
    """An array as NumPy has it, a typed key as its data."""
    return np.asarray(jax.random.key_data(leaf) if _is_key(leaf) else leaf)


def _blank(like: Any) -> np.ndarray:
    """What `_numbers` gives, of a leaf of which shape and dtype are known."""
    data = jax.eval_shape(jax.random.key_data, like) if _is_key(like) else like
    return np.zeros(data.shape, data.dtype)


def _placed(numbers: np.ndarray, like: Any) -> jax.Array:
    """The array or typed key that it was, with the sharding asked for, or on the first device."""
    first = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    array = jax.device_put(numbers, getattr(like, "sharding", None) or first)
    if not _is_key(like):
        return array
    kinds = ("threefry2x32", "rbg", "unsafe_rbg")
    of_dtype = (
        k
        for k in kinds
        if jax.eval_shape(partial(jax.random.key, 0, impl=k)).dtype
        == like.dtype
    )
    return jax.random.wrap_key_data(array, impl=next(of_dtype))


def _checks(kinds: Any, numbers: Any) -> dict[str, list]:
    """Of each leaf, dtype and shape and a checksum of its numbers."""
    return {
        path: [kind, zlib.crc32(x.tobytes())]
        for (path, kind), x in zip(
            _leaves(kinds).items(), jax.tree.leaves(numbers), strict=True
        )
    }


def _sealed(loss: float, leaves: dict[str, list]) -> dict[str, Any]:
    """The record of a step, with a checksum of its own: a flipped byte in a loss would make another step the best."""
    body = {"loss": loss, "leaves": leaves}
    return {
        **body,
        "crc32": zlib.crc32(json.dumps(body, sort_keys=True).encode()),
    }


class _NewestTwoAndBest:
    """Orbax's policy of preservation, by losses that we read: orbax keeps its own metrics without a checksum.

    A step whose loss cannot be read is preserved too, and takes the place of no other.
    """

    def __init__(self, losses: dict[int, float]):
        self.losses = losses

    def should_preserve(self, checkpoints, *, context) -> list[bool]:
        known = sorted(
            info.step for info in checkpoints if info.step in self.losses
        )
        keep = {
            *known[-2:],
            min(known, key=self.losses.__getitem__, default=None),
        }
        return [
            info.step in keep or info.step not in self.losses
            for info in checkpoints
        ]


class Checkpoints:
    """The checkpoints of one run: the newest, the one before it to fall back to, and the one of lowest loss.

    One process may have a directory open at a time. Use as a context manager, or call `close`.

    Args:
        directory: made if it does not exist; a finished step is the subdirectory of its number.
        report: called with one line for each damaged step.
    """

    def __init__(
        self,
        directory: PathLike,
        report: Callable[[str], None] = _print_to_stderr,
    ):
        directory, self._report = Path(directory), report
        self._directory = (
            directory if directory.is_absolute() else directory.resolve()
        )  # a URL would not survive it
        self._losses: dict[int, float] = {}
        if not processes.first():
            return
        options = ocp.CheckpointManagerOptions(
            preservation_policy=_NewestTwoAndBest(self._losses),
            cleanup_tmp_directories=True,
            create=False,
            multiprocessing_options=ocp.options.MultiprocessingOptions(
                active_processes={0}
            ),
        )
        self._directory.mkdir(parents=True, exist_ok=True)
        self._manager = ocp.CheckpointManager(
            self._directory, options=options, item_names=("state", "record")
        )
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
            UserError: this step is there already, or this one or the one before cannot be written.
        """
        if not processes.first():
            return
        self.wait()
        if step in self._manager.all_steps():
            raise UserError(
                f"checkpoints: step {step} is already in {self._directory}: use another directory"
            )
        kinds, numbers = (
            jax.tree.map(_kind, state),
            jax.tree.map(_numbers, state),
        )
        record = _sealed(float(loss), _checks(kinds, numbers))
        self._losses[step] = _rankable(record["loss"])
        # In a list, as orbax does not take a bare array.
        args = ocp.args.Composite(
            state=ocp.args.StandardSave([numbers]),
            record=ocp.args.JsonSave(record),
        )
        with self._writing():
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
        return self._restore(lambda steps: sorted(steps, reverse=True), like)

    def restore_best(self, like: Any) -> tuple[int, Any] | None:
        """As `restore`, for the step of lowest loss among those kept."""
        # A step without a readable loss comes first: it may have been the best, so it is to be reported.
        return self._restore(
            lambda steps: sorted(
                steps, key=lambda s: (self._losses.get(s, -math.inf), s)
            ),
            like,
        )

    def wait(self) -> None:
        """Block until what was saved is on disk.

        Raises:
            UserError: it cannot be written.
        """
        if processes.first():
            with self._writing():
                self._manager.wait_until_finished()

    def close(self) -> None:
        """Wait, and free the threads; the object cannot be used afterwards."""
        if processes.first():
            self.wait()
            self._manager.close()

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, *_) -> None:
        self.close()

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except (
            Exception
        ) as error:  # whatever orbax and tensorstore raise for a full disk
            code = re.search(r"os_error_code='(\d+)'", str(error))
            reason = (
                os.strerror(int(code[1]))
                if code
                else getattr(error, "strerror", None) or str(error)
            )
            raise UserError(
                f"workdir: {self._directory} cannot be written ({' '.join(reason.split())[:160]}): "
                "make room or allow it, and give the same command"
            ) from None

    def _restore(
        self, order: Callable[[list[int]], list[int]], like: Any
    ) -> tuple[int, Any] | None:
        self.wait()
        found = (
            self._first_whole(order(list(self._manager.all_steps())), like)
            if processes.first()
            else None
        )
        step, state = processes.broadcast(
            found or (np.int64(-1), jax.tree.map(_blank, like))
        )
        return (
            None
            if step < 0
            else (int(step), jax.tree.map(_placed, state, like))
        )

    def _first_whole(
        self, steps: Iterable[int], like: Any
    ) -> tuple[np.int64, Any] | None:
        problems = {}
        for step in steps:
            try:
                state = self._read(step, like)
            except Exception as error:  # whatever orbax and tensorstore raise for a damaged file
                problems[step] = " ".join(
                    f"{error or type(error).__name__}".split()
                )[:160]
                continue
            # Only now: if no step can be used the fault may be in ``like``, and all must stay as they are.
            for damaged, problem in problems.items():
                moved = self._set_aside(damaged)
                self._report(
                    f"checkpoints: step {damaged} is damaged ({problem}): using {step}, moved it to {moved}"
                )
            return np.int64(step), state
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
            kinds = [
                saved[path][0] if path in saved else "absent",
                _kind(leaves[path]) if path in leaves else "absent",
            ]
            if kinds[0] != kinds[1]:
                raise ValueError(
                    f"leaf {path} is {kinds[0]}, expected {kinds[1]}"
                )
        args = ocp.args.Composite(
            state=ocp.args.StandardRestore([jax.tree.map(_blank, like)])
        )
        numbers = self._manager.restore(step, args=args)["state"][0]
        for path, found in _checks(jax.tree.map(_kind, like), numbers).items():
            if found != saved[path]:
                raise ValueError(f"leaf {path} differs from its checksum")
        return numbers

    def _record(self, step: int) -> dict[str, Any]:
        try:
            record = self._manager.restore(
                step, args=ocp.args.Composite(record=ocp.args.JsonRestore())
            )["record"]
            if record == _sealed(record["loss"], record["leaves"]):
                return record
        except Exception as error:
            raise ValueError(
                f"its record of checksums cannot be read: {error}"
            ) from error
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
