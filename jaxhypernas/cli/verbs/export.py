"""``jaxhypernas export``."""

from dataclasses import dataclass
from typing import ClassVar

from etils.epath import Path

from jaxhypernas.cli.verbs.base import ContinueVerb
from jaxhypernas.types import UserError


@dataclass(frozen=True, kw_only=True)
class Export(ContinueVerb):
    """Writes a network as Flax source, weights and StableHLO.

    The network needs Flax alone. Without --arch it is the winner of the search, with
    the weights that training from scratch gave it.
    """

    writes: ClassVar[bool] = False

    example: ClassVar[str] = (
        "jaxhypernas export --workdir runs/search --out winner"
    )

    rank: int = 1
    """which of the candidates trained from scratch; 1 is the winner"""

    arch: str = ""
    """string, or id as top prints it, of an architecture instead; if it was not trained
    from scratch, the generator writes its weights"""

    generated: bool = False
    """take the weights that the generator writes in any case"""

    out: Path
    """directory to write to"""

    def run(self) -> list[Path]:
        """Writes the files."""
        try:
            self.out.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(
                f"out: {self.out} cannot be made ({error.strerror}): use another"
            ) from None
        return self.open().export(
            self.out, rank=self.rank, arch=self.arch, generated=self.generated
        )
