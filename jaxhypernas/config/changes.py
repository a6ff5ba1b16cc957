"""What is changed when a run's candidates are trained in another way than the run's."""

import json
from typing import Any

from jaxhypernas.config.config import Config, differences
from jaxhypernas.config.values import from_json, to_json
from jaxhypernas.types import UserError

_ALLOWED = ("space.", "data.", "retrain.train.", "seed")
"""Places of fields that matter to training from scratch begin with one of these."""

_PLACES_OF_IMAGES = ("data.dataset", "data.data_dir")
"""The place of the images: the images stay the same wherever they are."""

_BINDING = ("space.", "seed", "data.limit", "data.valid")
"""Places of fields that set the sizes of networks, or choose the held-out images, begin
with one of these. Weights trained under other values cannot be used."""


def changes(own: Config, other: Config) -> str:
    """Writes down in what another configuration differs from a run's own.

    Args:
        own: The run's configuration.
        other: The other one.

    Returns:
        JSON with the value of each field that differs, by place, as in
        ``{"retrain.train.steps": 1000}``; empty if none differs.

    Raises:
        UserError: A field differs that does not matter to training from scratch.
    """
    found = {}
    for place, _, value in differences(own, other):
        if place.startswith("execution.") or place in _PLACES_OF_IMAGES:
            continue
        if not place.startswith(_ALLOWED):
            raise UserError(
                f"{place}: it says nothing about training chosen architectures: leave "
                "it out, or use a new --workdir"
            )
        found[place] = value
    return json.dumps(found, sort_keys=True) if found else ""


def changed(own: Config, text: str) -> Config:
    """Returns a run's configuration with changes.

    Args:
        own: The run's configuration.
        text: What `changes` wrote.

    Raises:
        UserError: The changes do not fit the run.
    """
    values = json.loads(json.dumps(to_json(own)))
    for place, value in json.loads(text or "{}").items():
        _put(values, place, value)
    return from_json(values)


def binding(text: str) -> dict[str, Any]:
    """Returns the changes that rule out weights trained without them.

    Training must not go on from weights of other sizes, nor from weights that have seen
    images that are held out now.

    Args:
        text: What `changes` wrote.
    """
    found = json.loads(text or "{}")
    return {k: v for k, v in found.items() if k.startswith(_BINDING)}


def _put(values: dict[str, Any], place: str, value: Any) -> None:
    """Sets the value at a place, as in ``train.steps``."""
    *groups, name = place.split(".")
    for group in groups:
        values = values[group]
    values[name] = value
