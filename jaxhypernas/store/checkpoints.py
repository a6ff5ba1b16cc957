"""Checkpoints by orbax, with a checksum per leaf.

Orbax alone restores a flipped byte silently. Each step is a directory that holds the
state and a record: dtype, shape and checksum of each leaf, and a checksum of the record
itself. Orbax writes both under a temporary name and then renames them, so a killed save
leaves no step.
"""

import errno
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from etils.epath import Path, PathLike

from jaxhypernas.hosts import processes
from jaxhypernas.store import files, leaves
from jaxhypernas.types import UserError


class _OtherLeafError(ValueError):
    """A step holds other leaves than those asked for."""


class Checkpoints:
    """The two newest checkpoints of a run: the second is there to fall back to.

    A state is the same on all devices of all processes. So process 0 alone writes and
    reads it, as NumPy arrays, and sends it to the others: a state may be restored with
    another number of devices or processes than it was saved with.

    One program may have a directory open at a time. Use as a context manager, or call
    `close`::

        with Checkpoints("runs/mine/checkpoints") as checkpoints:
            checkpoints.save(100, state)
            step, state = checkpoints.restore(like=state)

    Args:
        directory: Made if it does not exist; a finished step is the subdirectory of its
            number.
        report: Called with one line for each damaged step.
    """

    def __init__(
        self,
        directory: PathLike,
        report: Callable[[str], None] = files.report,
    ):
        directory = Path(directory)
        # A URL counts as absolute and would not survive `resolve`.
        self._directory = (
            directory if directory.is_absolute() else directory.resolve()
        )
        self._report = report
        if not processes.first():
            return
        options = ocp.CheckpointManagerOptions(
            max_to_keep=2,
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

    def save(self, step: int, state: Any) -> None:
        """Saves a state in the background.

        The step is on disk after `wait`, `close` or the next `save`. The state may be
        donated or deleted as soon as this returns.

        Args:
            step: A step that is not saved yet.
            state: A pytree of arrays, typed PRNG keys among them, none of size 0.

        Raises:
            UserError: The step is there already, or this step or the one before cannot
                be written.
        """
        if not processes.first():
            return
        self.wait()
        if step in self._manager.all_steps():
            raise UserError(
                f"checkpoints: step {step} is already in {self._directory}: "
                "use another directory"
            )
        kinds = jax.tree.map(leaves.kind, state)
        arrays = jax.tree.map(leaves.to_numpy, state)
        record = leaves.seal({"leaves": leaves.checksums(kinds, arrays)})
        args = ocp.args.Composite(
            # In a list, as orbax does not take a bare array.
            state=ocp.args.StandardSave([arrays]),
            record=ocp.args.JsonSave(record),
        )
        with self._writing():
            self._manager.save(step, args=args, force=True)

    def restore(self, like: Any) -> tuple[int, Any] | None:
        """Reads the newest whole step, bit for bit as it was saved.

        Newer steps that are damaged, or that hold other leaves than ``like``, are
        reported and renamed to ``<step>.damaged``.

        Args:
            like: A pytree of arrays or ShapeDtypeStructs with the structure of the
                state. A leaf that has a sharding is restored with it, others to the
                first device.

        Returns:
            The step and its state, or None if there are no steps.

        Raises:
            UserError: There are steps, and none is whole; all are left as they are.
        """
        self.wait()
        found = self._newest_whole(like) if processes.first() else None
        nothing = np.int64(-1), jax.tree.map(leaves.zeros, like)
        step, arrays = processes.broadcast(found or nothing)
        if step < 0:
            return None
        return int(step), jax.tree.map(leaves.to_device, arrays, like)

    def wait(self) -> None:
        """Blocks until each saved step is on disk.

        Raises:
            UserError: The disk is full or protected.
        """
        if processes.first():
            with self._writing():
                self._manager.wait_until_finished()

    def close(self) -> None:
        """Waits and frees the threads; the object cannot be used afterwards."""
        if processes.first():
            self.wait()
            self._manager.close()

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, *_) -> None:
        self.close()

    @contextmanager
    def _writing(self) -> Iterator[None]:
        with files.writing(self._directory):
            try:
                yield
            except Exception as error:
                number = _system_error(error)
                if number is None:
                    raise
                raise OSError(number, os.strerror(number)) from None

    def _newest_whole(self, like: Any) -> tuple[np.int64, Any] | None:
        """The newest whole step, with leaves as those of ``like``, and its arrays."""
        problems = {}
        for step in sorted(self._manager.all_steps(), reverse=True):
            # Orbax and tensorstore raise almost any error for a damaged file.
            try:
                arrays = self._read(step, like)
            except Exception as error:
                self._check_readable(step, error)
                problems[step] = error
                continue
            # Damaged steps move only once a whole step is found: if no step fits, the
            # fault may be in ``like``, and all must stay as they are.
            for damaged, problem in problems.items():
                moved = files.set_aside(self._directory / str(damaged))
                self._report(
                    f"checkpoints: step {damaged} is damaged "
                    f"({files.one_line(problem)}): using {step}, moved it to "
                    f"{moved.name}"
                )
            if problems:
                self._manager.reload()
            return np.int64(step), arrays
        if not problems:
            return None
        step, problem = next(iter(problems.items()))
        advice = "put a copy back, or rename the directory to start again"
        if isinstance(problem, _OtherLeafError):
            advice = "use the configuration it was saved with"
        raise UserError(
            f"checkpoints: no step in {self._directory} can be used (step {step}: "
            f"{files.one_line(problem)}): {advice}"
        )

    def _check_readable(self, step: int, error: Exception) -> None:
        """Raises if the system, not the file, is why a step cannot be read now."""
        number = _system_error(error)
        missing = errno.ENOENT, errno.ENOTDIR
        if isinstance(error, MemoryError) or (
            number and number not in missing
        ):
            raise UserError(
                f"checkpoints: step {step} in {self._directory} cannot be read now "
                f"({files.one_line(error)})"
            )

    def _read(self, step: int, like: Any) -> Any:
        """The arrays of a step, or a ValueError that names the first wrong leaf."""
        kinds = jax.tree.map(leaves.kind, like)
        expected = leaves.by_path(kinds)
        saved = self._record(step)["leaves"]
        for path in sorted({*expected, *saved}):
            there = saved[path][0] if path in saved else "absent"
            wanted = expected.get(path, "absent")
            if there != wanted:
                raise _OtherLeafError(
                    f"leaf {path} is {there}, expected {wanted}"
                )

        blank = jax.tree.map(leaves.zeros, like)
        args = ocp.args.Composite(state=ocp.args.StandardRestore([blank]))
        arrays = self._manager.restore(step, args=args)["state"][0]
        for path, found in leaves.checksums(kinds, arrays).items():
            if found != saved[path]:
                raise ValueError(f"leaf {path} differs from its checksum")
        return arrays

    def _record(self, step: int) -> dict[str, Any]:
        """The record of a step, or a ValueError."""
        args = ocp.args.Composite(record=ocp.args.JsonRestore())
        try:
            record = self._manager.restore(step, args=args)["record"]
            body = {"leaves": record["leaves"]}
            whole = record == leaves.seal(body)
        except Exception as error:
            raise ValueError(
                f"its record of checksums cannot be read: {error}"
            ) from error
        if not whole:
            raise ValueError("its record of checksums is wrong")
        return record


def _system_error(error: Exception) -> int | None:
    """The system's error number of an error, if it has one."""
    if isinstance(error, OSError) and error.errno:
        return error.errno
    # Tensorstore hides it in a ValueError's text.
    code = re.search(r"os_error_code='(\d+)'", str(error))
    return int(code[1]) if code else None
