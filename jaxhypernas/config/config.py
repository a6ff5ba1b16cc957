"""The configuration of a run: a tree of the components' own, named presets, and its JSON."""

import dataclasses
import json
import typing
from dataclasses import dataclass, field

from etils.epath import Path, PathLike

from jaxhypernas import generators, spaces
from jaxhypernas.data.dataset import DataConfig
from jaxhypernas.execution.candidates import ExecutionConfig
from jaxhypernas.generators import GENERATORS, GhnConfig, SmashConfig
from jaxhypernas.programs.scoring import ScoreConfig
from jaxhypernas.programs.training import TrainConfig
from jaxhypernas.programs.truth import RetrainConfig
from jaxhypernas.search import STRATEGIES, SearchConfig
from jaxhypernas.spaces import SPACES, CellConfig, MemoryBankConfig
from jaxhypernas.types import UserError


@dataclass(frozen=True)
class Config:
    """Everything that determines a run's results, together with the number of devices."""

    space: str = "memory_bank"
    generator: str = "smash"
    strategy: str = "smash"
    seed: int = 0
    data: DataConfig = field(default_factory=lambda: DataConfig(pad=1))
    memory_bank: MemoryBankConfig = (
        spaces.SMALL
    )  # the size of networks: of this space,
    cells: CellConfig = field(
        default_factory=lambda: CellConfig(channels=8, cells=1)
    )  # and of all others
    smash: SmashConfig = generators.SMALL
    ghn: GhnConfig = field(default_factory=GhnConfig)
    train: TrainConfig = field(
        default_factory=lambda: TrainConfig(steps=800, learning_rate=1e-2)
    )
    score: ScoreConfig = field(default_factory=ScoreConfig)
    execution: ExecutionConfig = field(default_factory=ExecutionConfig)
    search: SearchConfig = field(
        default_factory=lambda: SearchConfig(number=1000)
    )
    retrain: RetrainConfig = field(default_factory=RetrainConfig)

    def __post_init__(self):
        for name, registry in (
            ("space", SPACES),
            ("generator", GENERATORS),
            ("strategy", STRATEGIES),
        ):
            if getattr(self, name) not in registry:
                raise UserError(
                    f"{name}: {getattr(self, name)!r} is not one of {', '.join(registry)}"
                )
        if not 0 <= self.seed < 2**32:
            raise UserError(
                f"seed: {self.seed} must be at least 0 and below 2^32"
            )
        if self.data.stream and self.generator == "standalone":
            raise UserError(
                "data.stream: standalone candidates need all images on a device: set it to False"
            )


_PAPER_TRAIN = TrainConfig(steps=90_000, batch=50, architectures=1, every=900)

PRESETS = {
    # Minutes on two CPU cores, on scikit-learn's digits.
    "small": Config(),
    # The same networks on CIFAR-10, at half its resolution after the stem: about an hour on two CPU cores.
    "small-cifar": Config(
        data=DataConfig("cifar10", valid=0.02, pad=4, flip=True),
        memory_bank=dataclasses.replace(spaces.SMALL, stem_stride=2),
        train=TrainConfig(steps=3000, learning_rate=1e-2),
        search=SearchConfig(),
        retrain=RetrainConfig(
            4, 48, TrainConfig(500, 64, architectures=1, learning_rate=1e-2)
        ),
    ),
    # NAS-Bench-201 at C=8, N=1 on CIFAR-10: minutes of training on two CPU cores (experiments/LOG.md).
    "nasbench201": Config(
        space="nasbench201",
        generator="shared",
        strategy="random",
        data=DataConfig("cifar10", valid=0.01, pad=4, flip=True),
        train=TrainConfig(
            steps=6000, batch=64, architectures=2, learning_rate=3e-3, every=200
        ),
        score=ScoreConfig(batch=32),
        retrain=RetrainConfig(
            4, 24, TrainConfig(1000, 64, architectures=1, learning_rate=1e-2)
        ),
    ),
    # SMASHv1 (Brock et al. 2018, section 4.1): 100 epochs of batch 50; published error of the retrained winner 5.53 %.
    "smash-paper": Config(
        data=DataConfig("cifar10", valid=0.1, pad=4, flip=True),
        memory_bank=MemoryBankConfig(),
        smash=SmashConfig(),
        train=_PAPER_TRAIN,
        search=SearchConfig(),
        retrain=RetrainConfig(
            1,
            50,
            dataclasses.replace(
                _PAPER_TRAIN, steps=270_000, optimizer="sgd", learning_rate=0.1
            ),
        ),
    ),
    # Graph hypernetwork (Zhang et al. 2019): trained on cells of 7 nodes, 18 cells of 17 nodes searched and the top 10
    # trained; published error 2.84 % (its training settings were not found: these are SMASH's).
    "ghn-paper": Config(
        space="ghn",
        generator="ghn",
        strategy="random",
        data=DataConfig("cifar10", valid=0.1, pad=4, flip=True),
        cells=CellConfig(channels=32, cells=6, nodes=17, train_nodes=7),
        train=_PAPER_TRAIN,
        search=SearchConfig(number=1000),
        retrain=RetrainConfig(
            10,
            100,
            dataclasses.replace(
                _PAPER_TRAIN, steps=45_000, optimizer="sgd", learning_rate=0.1
            ),
        ),
    ),
    # One-Shot (Bender et al. 2018): 10,000 steps, ghost batches of 32, path dropout; published top-10 accuracy 95.9 %.
    "one_shot-paper": Config(
        space="one_shot",
        generator="shared",
        strategy="random",
        data=DataConfig("cifar10", valid=0.1, pad=4, flip=True),
        cells=CellConfig(channels=32, cells=2),
        train=TrainConfig(
            10_000, 32, 32, "sgd", 0.1, path_dropout=0.05, ghosts=32
        ),
        search=SearchConfig(number=20_000),
        retrain=RetrainConfig(10, 50, TrainConfig(30_000, 64, 1, "sgd", 0.1)),
    ),
    # PNAS (Liu et al. 2018): every candidate trained for 20 epochs; published error of the retrained winner 3.41 %.
    "pnas-paper": Config(
        space="pnas",
        generator="standalone",
        strategy="progressive",
        data=DataConfig("cifar10", valid=0.1, pad=4, flip=True),
        cells=CellConfig(channels=24, cells=2),
        search=SearchConfig(surrogate="lstm"),
        retrain=RetrainConfig(1, 24, TrainConfig(7_000, 128, 1, "sgd", 0.01)),
    ),
}


def save(config: Config, path: PathLike) -> None:
    """Write as JSON, replaced whole: another process may be reading it."""
    path = Path(path)
    temporary = path.with_name(f"{path.name}.tmp")
    temporary.write_text(
        json.dumps(dataclasses.asdict(config), indent=2) + "\n"
    )
    temporary.replace(path)


def load(path: PathLike) -> Config:
    """Read what `save` wrote.

    Raises:
        UserError: the file is damaged or from another version.
    """
    try:
        return _build(Config, json.loads(Path(path).read_text()), "")
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(
            f"workdir: {path} is damaged or of another version ({error}): use a new --workdir"
        ) from None


def _build(kind: typing.Any, values: typing.Any, name: str) -> typing.Any:
    """The value of the field of this name and type (a component's config, or a leaf) that JSON has so."""
    if not dataclasses.is_dataclass(kind):
        if not _fits(values, kind):
            raise UserError(
                f"{name}: {values!r} is no {getattr(kind, '__name__', kind)}"
            )
        return tuple(values) if isinstance(values, list) else values
    if not isinstance(values, dict):
        raise UserError(f"{name}: {values!r} is no group of fields")
    hints, prefix = typing.get_type_hints(kind), name and f"{name}."
    for unlike in sorted(set(hints) ^ set(values)):
        raise UserError(
            f"{prefix}{unlike}: {'is missing' if unlike in hints else 'there is no such field'}"
        )
    parts = {
        field: _build(hints[field], value, prefix + field)
        for field, value in values.items()
    }
    try:
        return kind(**parts)
    except UserError as error:
        raise UserError(full_name(name, error)) from None


def full_name(group: str, error: object) -> str:
    """The complaint of a component's config, which calls itself as in "train.steps", where it is this group."""
    return group[: group.rfind(".") + 1] + str(error)


def _fits(value: object, hint: typing.Any) -> bool:
    kind, of = typing.get_origin(hint), typing.get_args(hint)
    if kind is typing.Literal:
        return value in of
    if kind is tuple:
        return isinstance(value, list) and all(_fits(v, of[0]) for v in value)
    if of:
        return any(_fits(value, each) for each in of)
    return type(value) in (
        (int, float) if hint is float else (hint,)
    )  # a bool is no int


def difference(
    a: Config, b: Config, prefix: str = ""
) -> tuple[str, object, object] | None:
    """The first field in which two configs differ: (dotted name, a's value, b's value)."""
    for f in dataclasses.fields(a):
        x, y = getattr(a, f.name), getattr(b, f.name)
        if dataclasses.is_dataclass(x):
            if found := difference(x, y, f"{prefix}{f.name}."):  # type: ignore[arg-type]
                return found
        elif x != y:
            return f"{prefix}{f.name}", x, y
    return None
