"""The configuration of a run: a tree of the components' own configurations."""

import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal, get_args, get_origin, get_type_hints

from jaxhypernas.archs.sizes import MemoryBankConfig
from jaxhypernas.config.sections import RetrainConfig, ScoreConfig, TrainConfig
from jaxhypernas.data.config import DataConfig
from jaxhypernas.execution.config import ExecutionConfig
from jaxhypernas.families import FAMILIES
from jaxhypernas.generators import GENERATORS
from jaxhypernas.generators.configs import SmashConfig
from jaxhypernas.search import STRATEGIES
from jaxhypernas.search.configs import Limits, SmashSearchConfig
from jaxhypernas.types import Family, Plugin, Settings, UserError

REGISTRIES: Mapping[str, Mapping[str, Family] | Mapping[str, Plugin]] = {
    "space": FAMILIES,
    "generator": GENERATORS,
    "strategy": STRATEGIES,
}
"""The registry behind each field of `Config` that chooses an entry of one."""


@dataclass(frozen=True)
class Config(Settings):
    """Everything that determines a run's results, with the number of devices.

    The types of ``space``, ``generator`` and ``strategy`` say which entries of the
    registries are chosen::

        Config(space=Nasbench201Config(channels=8), generator=GhnConfig())

    Raises:
        UserError: A value is out of range; the message names the field by its place in
            the tree, as in ``train.steps``.
    """

    space: Settings = MemoryBankConfig()
    """family of networks, and their sizes"""

    generator: Settings = SmashConfig()
    """network that writes weights"""

    strategy: Settings = SmashSearchConfig()
    """search"""

    seed: int = 0
    """seed of all randomness"""

    data: DataConfig = DataConfig()
    """images"""

    train: TrainConfig = TrainConfig()
    """training of the generator"""

    score: ScoreConfig = ScoreConfig()
    """scoring"""

    execution: ExecutionConfig = ExecutionConfig()
    """how candidates run"""

    search: Limits = Limits()
    """limits of the search"""

    retrain: RetrainConfig = RetrainConfig()
    """training from scratch"""

    def __post_init__(self) -> None:
        for slot in REGISTRIES:
            name_of(slot, getattr(self, slot))
        check_tree(self)

    def check(self) -> None:
        """Raises `UserError` for values that contradict each other."""
        if not 0 <= self.seed < 2**32:
            raise UserError(
                f"seed: {self.seed} must be at least 0 and below 2^32"
            )

    @property
    def names(self) -> dict[str, str]:
        """Names of the chosen space, generator and strategy, by field."""
        return {
            slot: name_of(slot, getattr(self, slot)) for slot in REGISTRIES
        }


def name_of(slot: str, settings: Settings) -> str:
    """Names the registry's entry that a configuration belongs to.

    Args:
        slot: "space", "generator" or "strategy".
        settings: The configuration of an entry.

    Returns:
        The name of the entry whose configuration has this type.

    Raises:
        UserError: No entry has this type, or several entries have it.
    """
    registry = REGISTRIES[slot]
    names = [
        name
        for name, entry in registry.items()
        if type(settings) is entry.config
    ]
    if len(names) > 1:
        raise UserError(
            f"{slot}: {' and '.join(names)} have one type of configuration: give each "
            "a type of its own"
        )
    if not names:
        raise UserError(
            f"{slot}: {settings!r} is not a configuration of {', '.join(registry)}"
        )
    return names[0]


def check_tree(settings: Settings, place: str = "") -> None:
    """Checks a configuration and all configurations in its fields.

    Args:
        settings: The configuration.
        place: What stands before the names of its fields, as in ``"train."``.

    Raises:
        UserError: The first complaint, its field named by its place in the tree.
    """
    kinds = get_type_hints(type(settings))
    for field in dataclasses.fields(settings):  # type: ignore[arg-type]
        value = getattr(settings, field.name)
        choices = get_args(kinds[field.name])
        if isinstance(value, Settings):
            check_tree(value, f"{place}{field.name}.")
        elif get_origin(kinds[field.name]) is Literal and value not in choices:
            raise UserError(
                f"{place}{field.name}: {value!r} is not one of {', '.join(choices)}"
            )
    try:
        settings.check()
    except UserError as error:
        raise UserError(f"{place}{error}") from None


def differences(
    a: Settings, b: Settings, place: str = ""
) -> Iterator[tuple[str, object, object]]:
    """Finds the fields in which two configurations differ.

    Args:
        a: A configuration.
        b: Another configuration of the same type.
        place: What stands before the names of their fields.

    Yields:
        The field's place in the tree, the value in ``a`` and the value in ``b``.
    """
    for field in dataclasses.fields(a):  # type: ignore[arg-type]
        ours = getattr(a, field.name)
        theirs = getattr(b, field.name)
        name = f"{place}{field.name}"
        if isinstance(ours, Settings) and type(ours) is type(theirs):
            yield from differences(ours, theirs, f"{name}.")
        elif ours != theirs:
            yield name, ours, theirs
