"""``jaxhypernas prepare``."""

import re
from dataclasses import dataclass
from pathlib import Path as LocalPath
from typing import ClassVar

from etils.epath import Path

from jaxhypernas.cli.verbs.base import Verb
from jaxhypernas.types import UserError


@dataclass(frozen=True, kw_only=True)
class Prepare(Verb):
    """Writes images as a prepared set, to stream or to share.

    tensorflow-datasets reads it, too. The same command goes on where it was stopped.
    """

    example: ClassVar[str] = (
        "jaxhypernas prepare images.npz --data-dir sets --name mine"
    )

    positional: ClassVar[str] = "source"

    source: str
    """images: whatever --dataset takes; may be the first word, without the flag"""

    data_dir: Path
    """directory of prepared sets"""

    name: str = ""
    """name of the set: lower-case letters, digits and underscores; default: from the
    source's file name"""

    def run(self) -> list[Path]:
        """Reads the images and writes the set."""
        from jaxhypernas.data import prepare
        from jaxhypernas.data.sources import in_memory
        from jaxhypernas.report import progress

        stem = LocalPath(self.source).name.split(".")[0]
        from_source = re.sub(r"\W+", "_", stem, flags=re.ASCII).lower()
        name = self.name or from_source
        if not re.fullmatch(r"[a-z][a-z0-9_]*", name):
            raise UserError(
                f"name: {name!r} must be lower-case letters, digits and underscores, "
                "a letter first"
            )
        source, classes = in_memory(self.source, None)
        parts = {
            "train": source.train,
            "validation": source.valid,
            "test": source.test,
        }
        splits = {
            part: split for part, split in parts.items() if split is not None
        }
        names = source.class_names or tuple(map(str, range(classes)))
        total = sum(split.size for split in splits.values())
        with progress.bar("prepare", total, "images") as bar:
            done = prepare.write(
                LocalPath(self.data_dir), name, splits, names, bar.advance
            )
        return [Path(done)]
