"""Wrong values of fields: on the command line and in config.json."""

import json
import math
from collections.abc import Callable
from random import Random
from types import NoneType
from typing import Any, Literal, NamedTuple, get_args, get_origin

from breakage_files import listed
from tiny import tiny

from jaxhypernas import __version__
from jaxhypernas.cli.flags import Flag, config_flags
from jaxhypernas.config import Config
from jaxhypernas.config.config import REGISTRIES
from jaxhypernas.config.values import to_json


class Field(NamedTuple):
    """A field of the configuration."""

    flag: Flag
    """Its flag."""

    chosen: tuple[str, ...]
    """Flags that choose the entry of a registry that has the field."""


def _fields() -> list[Field]:
    found = [
        Field(flag, ())
        for flag in config_flags(Config())
        if flag.place.partition(".")[0] not in REGISTRIES
        or flag.place in REGISTRIES
    ]
    for slot, registry in REGISTRIES.items():
        for name, entry in registry.items():
            flags = config_flags(entry.config(), f"{slot}.")
            found += [Field(flag, (f"--{slot}", name)) for flag in flags]
    return found


FIELDS = _fields()
ZERO_IS_LEGAL = (
    "seed data.pad execution.chunk search.max_params search.max_flops retrain.active "
    "space.train_nodes generator.virtual_edges strategy.greedy "
    "space.stem_stride"
)
LEAST: dict[str, int] = dict.fromkeys(ZERO_IS_LEGAL.split(), 0)
LEAST |= {"score.batch": 2, "retrain.sample": 3}

OUT_OF_RANGE = {
    "learning_rate": listed("0 -0.1 nan inf -inf -1e-9"),
    "weight_decay": listed("-1e-4 nan inf -inf"),
    "path_dropout": listed("1 1.5 -0.1 nan inf"),
    "valid": listed("0 1 -0.2 1.2 nan inf -inf 20"),
}
"""Values of the fields that are no whole numbers."""

NOT_INTEGERS = listed(
    "many ten 1.5 2.5 1e-3 nan inf True 0x10 1,000 ½ 8;", "", " ", "1 000"
)
NOT_NUMBERS = listed("fast 1,5 0.1.2 1e ½ 10% True --3", "", " ")
NO_LAYERS = listed("0 -3 2.5 x nan 3,3 (3,3)", "")
NO_CHOICES = listed(
    "nope ADAM None 0 random2 ghn,pnas \N{SNOWMAN}",
    *("", " ", "smash ", "two\nlines"),
)


def too_small(rng: Random, place: str) -> int:
    """A whole number below the least that a field may have."""
    below = LEAST.get(place, 1) - 1
    return rng.choice((below, -rng.randrange(2, 1000), -(10**12), -(10**30)))


def wrong_value(rng: Random, flag: Flag) -> str:
    """A value that is out of range, or of another type."""
    if int in (flag.kind, *get_args(flag.kind)[:1]) and not is_tuple(flag):
        below = str(too_small(rng, flag.place))
        return rng.choice((below, rng.choice(NOT_INTEGERS)))
    if flag.kind is float:
        bad = OUT_OF_RANGE[flag.place.rpartition(".")[2]]
        return rng.choice((rng.choice(bad), rng.choice(NOT_NUMBERS)))
    return rng.choice(NO_LAYERS if is_tuple(flag) else NO_CHOICES)


def is_tuple(flag: Flag) -> bool:
    """Whether a flag takes several values."""
    return get_origin(flag.kind) is tuple


JSON_VALUES: tuple[Any, ...] = (
    *("8", "", "None", None, True, 2.5, 3, math.nan, math.inf),
    *([], [3], [[2, 2]], {}, {"a": 1}),
)
FITTING = {
    int: (int,),
    float: (int, float),
    bool: (bool,),
    str: (str,),
    NoneType: (NoneType,),
}
"""Types of JSON's values that each type of field takes."""


def is_wrong(value: Any, flag: Flag) -> bool:
    """Whether a JSON value does not fit a field."""
    if is_tuple(flag):
        return value != [3]
    kinds = get_args(flag.kind) or (flag.kind,)
    if get_origin(flag.kind) is Literal:
        return value not in kinds
    return not any(type(value) in FITTING[kind] for kind in kinds)


def place_of(whole: dict, flag: Flag) -> tuple[dict, str]:
    """The group that holds a field, and the field's name in it."""
    *path, last = flag.place.split(".")
    for name in path:
        whole = whole[name]
    return whole, last


def wrong_type(rng: Random, whole: dict, flags: list[Flag]) -> tuple[str, ...]:
    """Gives a field a value of another type."""
    flag = rng.choice(flags)
    group, last = place_of(whole, flag)
    group[last] = rng.choice([x for x in JSON_VALUES if is_wrong(x, flag)])
    return (flag.place,)


def wrong_range(
    rng: Random, whole: dict, flags: list[Flag]
) -> tuple[str, ...]:
    """Gives a field a number that is out of range."""
    flag = rng.choice([f for f in flags if f.kind in (int, float)])
    group, last = place_of(whole, flag)
    group[last] = too_small(rng, flag.place)
    if flag.kind is float:
        group[last] = float(rng.choice(OUT_OF_RANGE[last]))
    return (flag.place,)


def extra(rng: Random, whole: dict, flags: list[Flag]) -> tuple[str, ...]:
    """Adds a field that there is not."""
    flag = rng.choice(flags)
    group, last = place_of(whole, flag)
    others = ("nope", "", "Steps", "two\nlines", "\N{SNOWMAN}", "__class__")
    added = rng.choice((*others, f"{last}x"))
    group[added] = 3
    place = flag.place[: len(flag.place) - len(last)]
    named = f"{place}{added}"
    return (" ".join(named.split()),)


def misplaced(rng: Random, whole: dict, flags: list[Flag]) -> tuple[str, ...]:
    """Moves a field to another group."""
    flag = rng.choice(flags)
    group, last = place_of(whole, flag)
    groups = [g for g in whole if isinstance(whole[g], dict)]
    other = rng.choice([g for g in groups if g != flag.place.split(".")[0]])
    while last in whole[other]:
        other = rng.choice(sorted(whole))
        other = other if isinstance(whole[other], dict) else "data"
    whole[other][last] = group.pop(last)
    return flag.place, f"{other}.{last}"


def no_group(rng: Random, whole: dict, flags: list[Flag]) -> tuple[str, ...]:
    """Puts a value where a group of fields should be."""
    name = rng.choice([g for g in whole if isinstance(whole[g], dict)])
    others: tuple[Any, ...] = (None, [], 3, "x", True, [whole[name]], {}, "{}")
    whole[name] = rng.choice(others)
    return (name,)


def no_name(rng: Random, whole: dict, flags: list[Flag]) -> tuple[str, ...]:
    """Chooses no entry of a registry, or one that there is not."""
    slot = rng.choice(list(REGISTRIES))
    del whole[slot]["name"]
    if rng.random() < 0.6:
        names: tuple[Any, ...] = ("nope", "", None, 3, [], {}, "two\nlines")
        whole[slot]["name"] = rng.choice(names)
    return (slot,)


def no_version(rng: Random, whole: dict, flags: list[Flag]) -> tuple[str, ...]:
    """Names no version, or another one."""
    del whole["version"]
    if rng.random() < 0.6:
        whole["version"] = rng.choice(("0.1.0", "9.0.0", "", None, 2, []))
    return ("version",)


BREAKS: list[Callable] = [wrong_type] * 3
BREAKS += [wrong_range, extra, misplaced, no_group, no_name]
BREAKS += [no_version]


def damaged(rng: Random, text: str) -> bytes:
    """A text of which something is lost, doubled or changed."""
    cut = rng.randrange(len(text) - 1)
    data = text.encode()
    small = (b"", b" \n", b"\0" * 40, b"null", b"[]", b"3", b'"x"', b"true")
    large = (b"[" * 10**5, b'{"data": ' * 10**5, b'{"a": ' + b"9" * 5000)
    return rng.choice(
        (
            data[:cut],
            data[:cut] + b"\xff\xfe" + data[cut:],
            text.encode("utf-16"),
            b"\xef\xbb\xbf" + data,
            data + b"}",
            data * 2,
            data.replace(b'"', b"'"),
            data.replace(b"\n}", b",\n}"),
            rng.randbytes(300),
            rng.choice((*small, b"NaN", b"{}")),
            rng.choice((*large, large[2] + b"}")),
        )
    )


def broken_config(rng: Random) -> tuple[bytes, tuple[str, ...]]:
    """A config.json that is broken, and names of which the complaint has one."""
    config = tiny(*(rng.choice(list(r)) for r in REGISTRIES.values()))
    whole = {"version": __version__, **to_json(config)}
    if rng.random() < 0.2:
        return damaged(rng, json.dumps(whole, indent=2)), ("config.json",)
    flags = [f for f in config_flags(config) if f.place not in REGISTRIES]
    names = rng.choice(BREAKS)(rng, whole, flags)
    return json.dumps(whole).encode(), names
