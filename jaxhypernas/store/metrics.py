"""metrics.jsonl of a work directory: a line for each segment and search round."""

import importlib.util
from functools import cached_property
from typing import Any

from etils.epath import Path, PathLike

from jaxhypernas.hosts import processes
from jaxhypernas.store import files, json_text


class Metrics:
    """Appends lines of figures; TensorBoard events too, where tensorboardX is there.

    Of several processes, the first one writes.

    Args:
        workdir: The work directory.
    """

    def __init__(self, workdir: PathLike):
        self._workdir = Path(workdir)

    def append(self, line: dict[str, Any]) -> None:
        """Appends a line.

        Args:
            line: Figures by name; the first one is the position, such as the step.
        """
        if not processes.first():
            return
        path = self._workdir / "metrics.jsonl"
        files.append_line(path, json_text.dumps(line))
        if self._events is not None:
            position, *_ = line.values()
            for name, value in line.items():
                if not isinstance(value, str):
                    self._events.add_scalar(name, value, position)

    @cached_property
    def _events(self) -> Any:
        if importlib.util.find_spec("tensorboardX") is None:
            return None
        tensorboard = importlib.import_module("tensorboardX")
        return tensorboard.SummaryWriter(str(self._workdir / "events"))
