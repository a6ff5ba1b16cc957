"""Configurations of the search strategies. Numbers count candidates."""

from dataclasses import dataclass
from typing import Literal, TypeVar

from jaxhypernas.types import Settings, UserError

_SettingsT = TypeVar("_SettingsT", bound=Settings)

_AMOUNTS = ("number", "perturbed", "greedy", "beam")
"""Fields that say how many candidates are scored."""


@dataclass(frozen=True)
class Limits(Settings):
    """Limits that hold in every strategy."""

    max_params: int = 0
    """largest number of parameters, live or not; 0: no limit"""

    max_flops: int = 0
    """largest number of multiply-adds, live or not; 0: no limit"""

    def check(self) -> None:
        """Raises `UserError` for a negative limit."""
        check_least(self, {"max_params": 0, "max_flops": 0})


@dataclass(frozen=True)
class RandomConfig(Settings):
    """Random search."""

    number: int = 1000
    """random samples"""

    def check(self) -> None:
        """Raises `UserError` for a number out of range."""
        check_least(self, {"number": 1})


@dataclass(frozen=True)
class SmashSearchConfig(Settings):
    """SMASH's search (published: 500 samples, 100 perturbed, 100 greedy steps)."""

    number: int = 1000
    """random samples"""

    perturbed: int = 100
    """perturbations of the best sample"""

    greedy: int = 100
    """greedy steps from the best candidate"""

    def check(self) -> None:
        """Raises `UserError` for a number out of range."""
        check_least(self, {"number": 1, "perturbed": 1, "greedy": 0})


@dataclass(frozen=True)
class EvolutionConfig(Settings):
    """Regularized evolution (published: 100 alive, tournaments of 25)."""

    number: int = 1000
    """all candidates"""

    population: int = 100
    """candidates alive"""

    tournament: int = 25
    """candidates drawn to choose a parent"""

    children: int = 1
    """children made and scored together: more keep all devices busy, 1 is the
    published algorithm"""

    def check(self) -> None:
        """Raises `UserError` for a number out of range."""
        check_least(self, dict.fromkeys(vars(self), 1))
        check_population(self.population, self.number)


@dataclass(frozen=True)
class Nsga2Config(Settings):
    """NSGA-II: score, or loss, against a count."""

    number: int = 1000
    """all candidates"""

    population: int = 100
    """candidates of a generation"""

    objective: Literal["params", "flops"] = "params"
    """the count that is weighed against the score, or the loss"""

    def check(self) -> None:
        """Raises `UserError` for a number out of range."""
        check_least(self, {"number": 1, "population": 1})
        check_population(self.population, self.number)


@dataclass(frozen=True)
class ProgressiveConfig(Settings):
    """PNAS's search (published: 256 candidates of each level)."""

    beam: int = 256
    """candidates scored of each level after the first"""

    surrogate: Literal["mlp", "lstm"] = "mlp"
    """model that chooses the candidates to score"""

    def check(self) -> None:
        """Raises `UserError` for a number out of range."""
        check_least(self, {"beam": 1})


def check_least(config: Settings, least: dict[str, int]) -> None:
    """Checks that some fields are not too small.

    Args:
        config: The configuration.
        least: The smallest value allowed of each field.

    Raises:
        UserError: A value is smaller.
    """
    for name, smallest in least.items():
        value = getattr(config, name)
        if value < smallest:
            raise UserError(f"{name}: {value} must be at least {smallest}")


def check_population(population: int, number: int) -> None:
    """Checks that a population is no larger than the search.

    Args:
        population: Candidates alive.
        number: All candidates.

    Raises:
        UserError: The population is larger.
    """
    if population > number:
        raise UserError(
            f"population: {population} must be at most number, {number}"
        )


def scaled(config: _SettingsT, factor: float) -> _SettingsT:
    """Returns a strategy's configuration with more or fewer candidates.

    Args:
        config: The configuration.
        factor: How many times as many.
    """
    changed = {
        name: max(1, round(factor * value))
        for name, value in vars(config).items()
        if name in _AMOUNTS
    }
    if "population" in vars(config) and "number" in changed:
        population = vars(config)["population"]
        changed["population"] = min(population, changed["number"])
    return type(config)(**{**vars(config), **changed})
