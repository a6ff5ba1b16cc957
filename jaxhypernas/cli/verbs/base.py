"""What verbs share: a verb is a dataclass whose fields are its flags."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from etils.epath import Path

from jaxhypernas.config.config import Config
from jaxhypernas.types import UserError

if TYPE_CHECKING:
    from jaxhypernas.run import Run


@dataclass(frozen=True, kw_only=True)
class Verb:
    """A verb of the command line. The first line of its docstring is its help."""

    example: ClassVar[str]
    """A command for the help."""

    positional: ClassVar[str] = ""
    """The flag that the first word after the verb is the value of; none: ``""``."""

    common: ClassVar[tuple[str, ...]] = (
        "space",
        "generator",
        "strategy",
        "data.dataset",
        "data.data_dir",
        "train.steps",
        "strategy.number",
        "search.max_params",
        "seed",
    )
    """Flags of the configuration that its short help shows, by place."""

    plugin: tuple[str, ...] = ()
    """Python file, or module, that adds your own entries to the registries; may be
    given several times"""

    def run(self) -> list[Path]:
        """Does the work; returns the files and directories that it wrote.

        Raises:
            UserError: A flag's value does not fit.
        """
        raise NotImplementedError


@dataclass(frozen=True, kw_only=True)
class RunVerb(Verb):
    """A verb that goes on with the run of a work directory."""

    writes: ClassVar[bool] = True
    """Whether it adds to the run: one such verb at a time may run in a directory."""

    workdir: Path
    """directory of the run"""

    distributed: bool = False
    """this is one of several processes, which all give the same command"""

    filter_log: bool = False
    """with --distributed: if a process is lost, one line instead of JAX's log"""

    def open(self, config: Config | None = None) -> "Run":
        """Opens the run.

        Args:
            config: The configuration of a new run; None: the run has begun.

        Raises:
            UserError: The work directory holds no run, or one with another
                configuration.
        """
        from jaxhypernas.run import Run

        return Run(self.workdir, config)


@dataclass(frozen=True, kw_only=True)
class ContinueVerb(RunVerb):
    """A verb that goes on with a begun run."""

    dataset: str | None = None
    """where the images that the run began with are now; default: where they were"""

    data_dir: str | None = None
    """where tensorflow-datasets has the run's set now; default: where it was"""

    def open(self, config: Config | None = None) -> "Run":
        """Opens the run, with its images where they are now.

        Args:
            config: The configuration; None: the run's own.

        Raises:
            UserError: The work directory holds no run.
        """
        from jaxhypernas.config import file
        from jaxhypernas.programs import pretrained

        given = self.dataset or self.data_dir
        if given and pretrained.is_packed(self.workdir):
            raise UserError(
                f"dataset: {self.workdir} has the images of its pretrained "
                "hypernetwork: leave --dataset and --data-dir out"
            )
        moved = file.moved(self.workdir, self.dataset, self.data_dir)
        return super().open(config or moved)


@dataclass(frozen=True, kw_only=True)
class Configured(Verb):
    """A verb with the flags of the configuration."""

    config: Config
    """The configuration; it has flags of its own."""


@dataclass(frozen=True, kw_only=True)
class FromPreset(Configured):
    """A verb that a named configuration may be given to."""

    preset: str = ""
    """named configuration, which other flags change; default: the run's own, or small
    for a new run"""


@dataclass(frozen=True, kw_only=True)
class BeginVerb(FromPreset, RunVerb):
    """A verb that begins a run, or goes on with it."""

    workdir: Path = Path("runs/search")
    """directory of the run; continues the run that the directory holds"""
