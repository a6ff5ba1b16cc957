"""Broken command lines, configurations and files, drawn at random: a case is determined by its category and number.

A case is a command that must be refused, the files it needs, and the names of which the complaint must have one. Paths
are relative to a directory of the case's own; ``BASE/SPACE`` is a run begun in that space.
"""

import dataclasses
import io
import json
import random
import string
import typing
from collections.abc import Mapping
from functools import reduce
from operator import getitem
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from tiny import TINY

from jaxhypernas.config.config import Config
from jaxhypernas.generators import GENERATORS
from jaxhypernas.search import STRATEGIES
from jaxhypernas.spaces import SPACES

VERBS = (
    "search",
    "train",
    "score",
    "top",
    "retrain",
    "rank",
    "report",
    "compile",
)
CELLS = ("nasbench101", "nasbench201", "ghn", "pnas", "one_shot")


Archs = dict[str, list[str]]  # of each space


class Case(NamedTuple):
    """A command that must be refused."""

    words: list[str]
    names: tuple[str, ...]  # one of them is in the complaint
    files: Mapping[str, bytes | None] = {}  # None: a directory


def leaves(kind: Any = Config, prefix: str = "") -> dict[str, Any]:
    """The type of each field of the configuration, by its dotted name."""
    found = {}
    for name, hint in typing.get_type_hints(kind).items():
        if dataclasses.is_dataclass(hint):
            found |= leaves(hint, f"{prefix}{name}.")
        else:
            found[prefix + name] = hint
    return found


FIELDS = leaves()
GROUPS = [
    f.name
    for f in dataclasses.fields(Config)
    if dataclasses.is_dataclass(getattr(TINY, f.name))
]
ZERO_IS_LEGAL = (
    "seed",
    "data.pad",
    "cells.train_nodes",
    "execution.chunk",
    "ghn.virtual_edges",
)
ZERO_IS_LEGAL += ("search.greedy", "search.max_params", "search.max_flops")
LEAST = dict.fromkeys(ZERO_IS_LEGAL, 0) | {
    "score.batch": 2,
    "retrain.sample": 3,
}
OUT_OF_RANGE = {
    "learning_rate": ("0", "-0.1", "nan", "inf", "-inf", "-1e-9"),
    "weight_decay": ("-1e-4", "nan", "inf", "-inf"),
    "path_dropout": ("1", "1.5", "-0.1", "nan", "inf"),
    "valid": ("0", "1", "-0.2", "1.2", "nan", "inf", "-inf", "20"),
}
NOT_INTEGERS = (
    "many",
    "ten",
    "1.5",
    "2.0",
    "1e3",
    "nan",
    "inf",
    "True",
    "0x10",
    "1,000",
    "1 000",
    "½",
    "",
    " ",
    "8;",
)
NOT_NUMBERS = ("fast", "1,5", "0.1.2", "1e", "", " ", "½", "10%", "True", "--3")
NO_LAYERS = ("", "0", "-3", "2.5", "x", "nan", "3,3", "(3,3)")
NO_CHOICES = (
    "nope",
    "",
    " ",
    "ADAM",
    "None",
    "0",
    "random2",
    "smash ",
    "ghn,pnas",
    "\N{SNOWMAN}",
    "two\nlines",
)
WHAT_IS_HUGE = {  # a number so large that the run could not begin, and what it must be set with to matter
    **dict.fromkeys(
        [
            "seed",
            "data.pad",
            "train.steps",
            "train.batch",
            "train.architectures",
            "train.ghosts",
        ],
        "",
    ),
    **dict.fromkeys(
        [
            "execution.chunk",
            "search.number",
            "search.perturbed",
            "retrain.sample",
        ],
        "",
    ),
    **dict.fromkeys(
        ["retrain.train.steps", "retrain.train.batch", "retrain.train.ghosts"],
        "",
    ),
    **dict.fromkeys(
        ("search.tournament", "search.children"), "--strategy evolution"
    ),
    "search.population": "--strategy nsga2",
    "search.beam": "--strategy progressive --space pnas",
    **dict.fromkeys(
        (
            f"memory_bank.{x}"
            for x in [
                "unit",
                "units",
                "depth",
                "widening",
                "slots",
                "stem_stride",
            ]
        ),
        "",
    ),
    "cells.channels": "--space nasbench201 --generator shared",
    "cells.cells": "--space one_shot --generator shared",
    "cells.nodes": "--space ghn --generator ghn",
    "cells.train_nodes": "--space ghn --generator ghn",
    **dict.fromkeys(
        ("ghn.hidden", "ghn.decoder", "ghn.passes"),
        "--space nasbench201 --generator ghn",
    ),
    **dict.fromkeys(("smash.stem", "smash.growth", "smash.layers"), ""),
}


def flag(name: str) -> str:
    """The command line's name of a field."""
    return f"--{name}".replace("_", "-")


def given(rng: random.Random, name: str, value: str) -> list[str]:
    """A flag with its value, in one word or two."""
    return (
        [f"{flag(name)}={value}"]
        if value[:1] == "-" or rng.random() < 0.3
        else [flag(name), value]
    )


def values(rng: random.Random, number: int, archs: Archs) -> Case:
    """A field with a value that is out of range or of another type."""
    fields = [
        n
        for n, hint in FIELDS.items()
        if hint is not bool and hint != str | None
    ]
    name = fields[number % len(fields)]
    hint, last = FIELDS[name], name.split(".")[-1]
    if hint in (int, int | None):
        below = str(
            rng.choice(
                (
                    LEAST.get(name, 1) - 1,
                    -rng.randrange(2, 1000),
                    -(10**12),
                    -(10**30),
                )
            )
        )
        value = below if rng.random() < 0.5 else rng.choice(NOT_INTEGERS)
    elif hint is float:
        value = rng.choice(
            OUT_OF_RANGE[last] if rng.random() < 0.6 else NOT_NUMBERS
        )
    elif name == "smash.layers":
        value = rng.choice(NO_LAYERS)
    else:
        value = rng.choice(NO_CHOICES)
    verb = rng.choice(
        (
            "search",
            "search",
            "train",
            "compile" if name != "data.dataset" else "search",
        )
    )
    return Case([verb, *given(rng, name, value)], (name,))


def huge(rng: random.Random, number: int, archs: Archs) -> Case:
    """A number for which there is neither memory nor time."""
    name = list(WHAT_IS_HUGE)[number % len(WHAT_IS_HUGE)]
    size = 4 * 10 ** rng.randrange(10, 19)
    return Case(
        ["search", *WHAT_IS_HUGE[name].split(), *given(rng, name, str(size))],
        (name,),
    )


def flags(rng: random.Random, number: int, archs: Archs) -> Case:
    """A misspelt flag, one without its value, words that belong nowhere."""
    name, verb = rng.choice(list(FIELDS)), rng.choice(("search", "train"))
    kind = rng.randrange(6)
    if kind == 0:
        name = rng.choice([n for n, hint in FIELDS.items() if hint is not bool])
        return Case([verb, *given(rng, "seed", "3"), flag(name)], (name,))
    if kind == 1:
        short = rng.choice(
            (
                "--dataset",
                "--data-dir",
                "--max-params",
                "--max-flops",
                "--preset",
                "--workdir",
            )
        )
        return Case(
            [verb, short],
            tuple(f"{group}{short[2:]}" for group in ("data.", "search.", "")),
        )
    if kind == 2:
        wrong = rng.choice(
            ("serch", "Search", "", "-search", "train.py", "help", "scores")
        )
        return Case([wrong, *given(rng, name, "3")], ("verb",))
    if kind == 3:
        extra = rng.choice(("extra", "-x", "steps=3", "3", "--train", "--data"))
        return Case([verb, "--seed", "3", extra], (extra, "search", "train"))
    spelt = list(flag(name))
    while "".join(spelt) in map(flag, FIELDS) or "".join(spelt).startswith(
        "--no-"
    ):
        at = rng.randrange(2, len(spelt))
        change = rng.choice(("drop", "double", "swap", "other"))
        if change == "drop":
            del spelt[at]
        elif change == "double":
            spelt.insert(at, rng.choice(string.ascii_lowercase))
        elif change == "swap" and at + 1 < len(spelt):
            spelt[at : at + 2] = spelt[at + 1], spelt[at]
        else:
            spelt[at] = rng.choice(string.ascii_lowercase)
    return Case([verb, "".join(spelt), "3"], ("".join(spelt)[2:],))


def npz(**arrays: Any) -> bytes:
    """The bytes of an ``.npz``."""
    file = io.BytesIO()
    np.savez(file, **arrays)
    return file.getvalue()


def images(
    rng: random.Random,
    height: int = 8,
    width: int = 8,
    number: int = 60,
    **other: Any,
) -> dict[str, Any]:
    """The arrays of a set that is in order, but for ``other``."""
    x = np.random.default_rng(rng.randrange(99)).integers(
        0, 256, (number, height, width, 1), np.uint8
    )
    y = np.arange(number, dtype=np.int32) % 3
    return {"x_train": x, "y_train": y, "x_test": x, "y_test": y} | other


def combinations(rng: random.Random, number: int, archs: Archs) -> Case:
    """Parts that are in order, but don't fit each other."""
    space, generator, strategy = (
        rng.choice(list(r)) for r in (SPACES, GENERATORS, STRATEGIES)
    )
    cell, old = rng.choice(CELLS), rng.choice(("evolution", "nsga2"))
    below = str(rng.randrange(1, 100))
    small = npz(**images(rng, rng.choice((6, 7, 10)), rng.choice((8, 5))))
    few = str(rng.randrange(10, 60))
    choices: list[tuple[str, tuple[str, ...]]] = [
        (
            f"--strategy progressive --space {rng.choice(('memory_bank', 'nasbench101'))}",
            ("strategy",),
        ),
        (
            f"--train.path-dropout 0.{below} --space {rng.choice(('memory_bank', 'nasbench101'))}",
            ("train.path_dropout",),
        ),
        (
            f"--space ghn --generator {rng.choice(('shared', 'smash'))} --cells.train-nodes 2",
            ("cells.train_nodes",),
        ),
        (
            f"--execution.form fused --space {rng.choice([s for s in SPACES if s != 'nasbench201'])}",
            ("execution.form",),
        ),
        (
            f"--memory-bank.stem-stride {rng.choice((4, 8, 99))}",
            ("memory_bank.stem_stride", "space"),
        ),
        (f"--space {cell} --dataset small.npz", ("space",)),
        (
            f"--data.limit {few} --data.valid 0.1 --space {space}",
            ("data.valid",),
        ),
        (
            f"--data.limit {rng.randrange(1, 10)} --generator {generator}",
            ("data.limit",),
        ),
        (
            f"--data.limit 100 --data.valid 1e-{rng.randrange(3, 9)}",
            ("data.valid",),
        ),
        (
            f"--data.limit 100 --data.valid 0.999{rng.randrange(9)}",
            ("data.valid",),
        ),
        (
            f"--strategy {old} --search.number {few} --search.population {int(few) + 1}",
            ("search.population",),
        ),
        (
            f"--max-params {below} --strategy {rng.choice(('random', 'smash'))}",
            ("search.max_params",),
        ),
        (
            f"--max-flops {below} --space {cell} --generator shared --strategy random",
            ("search.max_flops",),
        ),
        (
            f"--train.architectures {rng.choice((1, 3, 5, 7))} --train.batch 30 --space {space}",
            ("train.batch",),
        ),
        (f"--train.batch {2**21} --space {space}", ("train.batch",)),
        (
            f"--generator standalone --strategy {strategy} --train.steps 9 --score.batch 1",
            ("score.batch",),
        ),
        (
            f"--memory-bank.units {rng.randrange(5, 20)}",
            ("memory_bank.widening", "memory_bank.units"),
        ),
        (
            "--memory-bank.compression 5",
            ("memory_bank.units", "memory_bank.compression"),
        ),
        (
            f"--memory-bank.max-kernel {rng.choice((1, 2, 4, 6, 8, 9))}",
            ("memory_bank.max_kernel",),
        ),
        (
            f"--memory-bank.stem-kernel {rng.choice((2, 4, 6))}",
            ("memory_bank.stem_kernel",),
        ),
        (f"--preset {rng.choice(('big', 'smal', ''))}x --seed 1", ("preset",)),
        (
            f"--preset {rng.choice(('small-cifar', 'ghn-paper', 'pnas-paper'))} --data-dir none",
            ("data.data_dir",),
        ),
    ]
    text, names = choices[number % len(choices)]
    return Case(
        ["search", *text.split()],
        names,
        {"small.npz": small} if "small.npz" in text else {},
    )


def wrong_type(rng: random.Random, hint: Any, value: Any) -> Any:
    """A JSON value of another type than the field's."""
    others = [
        "8",
        "",
        None,
        True,
        2.5,
        3,
        [],
        [3],
        {},
        {"a": 1},
        float("nan"),
        [[2, 2]],
        "None",
        float("inf"),
    ]
    fits = {
        int: lambda x: type(x) is int,
        float: lambda x: type(x) in (int, float),
        bool: lambda x: type(x) is bool,
        str: lambda x: type(x) is str,
    }
    kinds = [hint] if hint in fits else typing.get_args(hint)
    if typing.get_origin(hint) is typing.Literal:
        kinds = [str]
    return rng.choice(
        [
            x
            for x in others
            if not (
                any(k in fits and fits[k](x) for k in kinds)
                or (x is None and type(None) in kinds)
            )
        ]
    )


def config_json(rng: random.Random, number: int, archs: Archs) -> Case:
    """A work directory whose config.json is broken."""
    whole: dict[str, Any] = dataclasses.asdict(TINY)
    text = json.dumps(whole, indent=2)
    name = rng.choice(list(FIELDS))
    *path, last = name.split(".")
    group = reduce(getitem, path, whole)
    names: tuple[str, ...] = (name,)
    kind = rng.choice(
        (
            "type",
            "type",
            "type",
            "range",
            "extra",
            "missing",
            "nesting",
            "group",
            "text",
            "text",
        )
    )
    if kind == "type":
        group[last] = wrong_type(rng, FIELDS[name], group[last])
    elif kind == "range":
        name = rng.choice(
            [n for n, hint in FIELDS.items() if hint in (int, float)]
        )
        *path, last = name.split(".")
        group = reduce(getitem, path, whole)
        bad = (
            OUT_OF_RANGE[last]
            if last in OUT_OF_RANGE
            else (LEAST.get(name, 1) - 1, -(10**12), -3)
        )
        group[last], names = (
            (float if last in OUT_OF_RANGE else int)(rng.choice(bad)),
            (name,),
        )
    elif kind == "extra":
        extra = rng.choice(
            (
                "nope",
                "",
                last + "s",
                "Steps",
                "two\nlines",
                "\N{SNOWMAN}",
                "__class__",
            )
        )
        group[extra], names = (
            3,
            (".".join((*path, extra)).encode("unicode_escape").decode(),),
        )
    elif kind == "missing":
        del group[last]
    elif kind == "nesting":
        other = rng.choice([g for g in GROUPS if g != (path or [""])[0]])
        whole[other][last] = group.pop(last)
        names = (name, f"{other}.{last}")
    elif kind == "group":
        wrong = rng.choice(GROUPS)
        whole[wrong], names = (
            rng.choice((None, [], 3, "x", True, [whole[wrong]], {}, "{}")),
            (wrong,),
        )
    data = json.dumps(whole).encode()
    if kind == "text":
        cut, names = rng.randrange(len(text) - 1), ("config.json",)
        data = rng.choice(
            (
                text[:cut].encode(),
                text[:cut].encode() + b"\xff\xfe" + text[cut:].encode(),
                text.encode("utf-16"),
                b"\xef\xbb\xbf" + text.encode(),
                text.encode() + b"}",
                (text * 2).encode(),
                text.replace('"', "'").encode(),
                text.replace("\n}", ",\n}").encode(),
                rng.randbytes(300),
                rng.choice(
                    (
                        b"",
                        b" \n",
                        b"\0" * 40,
                        b"null",
                        b"[]",
                        b"3",
                        b'"x"',
                        b"true",
                        b"NaN",
                        b"{}",
                    )
                ),
                rng.choice(
                    (
                        b"[" * 10**5,
                        b'{"data": ' * 10**5,
                        b'{"seed": ' + b"9" * 5000 + b"}",
                    )
                ),
            )
        )
    words = rng.choice(
        (
            ["search"],
            ["train"],
            ["score", "--random", "3"],
            ["retrain"],
            ["report"],
            ["score", "--all"],
        )
    )
    return Case([*words, "--workdir", "run"], names, {"run/config.json": data})


def mutated(
    rng: random.Random, space: str, arch: str, others: list[str]
) -> str:
    """An architecture's string, changed so that it is none of the space."""
    letters = [
        i
        for i, c in enumerate(arch)
        if c.isalpha() and not (space == "memory_bank" and c == "b" and i == 0)
    ]
    digits = [i for i, c in enumerate(arch) if c.isdigit()]
    at, digit = rng.choice(letters), rng.choice(digits)
    end = (
        arch.rindex("/")
        if space == "memory_bank"
        else arch.index("|")
        if space == "nasbench101"
        else len(arch)
    )
    return rng.choice(
        (
            arch[:at] + arch[at + 1 :],
            arch[:at] + rng.choice("zZ?\N{SNOWMAN}\x7f") + arch[at:],
            rng.choice((arch[:-1], arch[: rng.randrange(1, end)])),
            arch[:digit] + "99" + arch[digit + 1 :],
            arch[:digit] + "-1" + arch[digit + 1 :],
            arch[:digit] + "\N{SUPERSCRIPT TWO}" + arch[digit + 1 :],
            arch + arch,
            f"{arch};{arch}",
            arch.upper(),
            rng.choice(others),
            "".join(
                rng.choices(string.printable.strip(), k=rng.randrange(1, 90))
            ),
            rng.choice(
                (
                    "nan",
                    "None",
                    "0",
                    "{}",
                    "[]",
                    "-" * 9,
                    "|",
                    ";",
                    "/",
                    "x" * 10**6,
                )
            ),
        )
    )


def strings(rng: random.Random, number: int, archs: Archs) -> Case:
    """An architecture among others that isn't one."""
    space = rng.choice(list(archs))
    others = [a for s in archs if s != space for a in archs[s]]
    good = rng.sample(archs[space], 4)
    bad = mutated(rng, space, rng.choice(good), others)
    lines = [*good, bad, *good]
    if number % 20 == 7:
        lines = good * 1100 + [bad]  # far down
    if rng.random() < 0.4:
        file = "truth.csv"
        quoted = [a.replace('"', '""') for a in lines]
        text = "arch,accuracy\n" + "".join(
            f'"{a}",{i}\n' for i, a in enumerate(quoted)
        )
        return Case(
            ["rank", "--truth", file, "--workdir", f"BASE/{space}"],
            ("arch", "truth"),
            {file: text.encode()},
        )
    out = rng.choice(([], ["--out", "out.parquet"]))
    words = [
        "score",
        "--archs",
        "archs.txt",
        *out,
        "--workdir",
        f"BASE/{space}",
    ]
    return Case(words, ("arch",), {"archs.txt": "\n".join(lines).encode()})


def parquet(**columns: Any) -> bytes:
    """The bytes of a Parquet."""
    file = io.BytesIO()
    pq.write_table(pa.table(columns), file)
    return file.getvalue()


def files(rng: random.Random, number: int, archs: Archs) -> Case:
    """A file of architectures, or of truth, that cannot be used."""
    space = rng.choice(list(archs))
    good, field = rng.sample(archs[space], 5), rng.choice(("archs", "truth"))
    quoted = [f'"{a}"' for a in good]
    whole = parquet(arch=good, accuracy=[0.1, 0.2, 0.3, 0.4, 0.5])
    cut = rng.randrange(len(whole) - 1)
    both: list[tuple[str, bytes | None, tuple[str, ...]]] = [
        (f"f.{rng.choice(('txt', 'csv', 'parquet'))}", None, (field,)),
        ("f.csv", rng.choice((b"", b"\n\n", b"arch,accuracy\n")), (field,)),
        (
            "f.csv",
            ("name,accuracy\n" + "".join(f"{a},1\n" for a in quoted)).encode(),
            ("arch",),
        ),
        (
            "f.csv",
            (
                "arch,accuracy\n"
                + "\n".join(f"{a},1" for a in quoted)
                + "\n,\n\xff"
            ).encode("latin-1"),
            (field,),
        ),
        (
            "f.csv",
            ("arch,accuracy\n" + "".join(f"{a},1\n" for a in quoted)).encode(
                "utf-16"
            ),
            (field,),
        ),
        (
            "f.csv",
            b"arch,accuracy\n" + b"x" * 200_000 + b",1\n",
            ("arch", field),
        ),
        (
            "f.csv",
            (
                "arch,accuracy\n"
                + "".join(f"{a},1\n" for a in quoted)
                + "\n\n,3\n"
            ).encode(),
            ("arch",),
        ),
        ("f.parquet", whole[:cut], (field,)),
        ("f.parquet", rng.randbytes(200), (field,)),
        ("f.parquet", b"", (field,)),
        (
            "f.parquet",
            parquet(
                arch=pa.array([], pa.string()),
                accuracy=pa.array([], pa.float64()),
            ),
            (field,),
        ),
        (
            "f.parquet",
            parquet(arch=[1, 2, 3, 4], accuracy=[1.0, 2.0, 3.0, 4.0]),
            ("arch",),
        ),
        (
            "f.parquet",
            parquet(arch=[*good, None], accuracy=[1.0] * 6),
            ("arch",),
        ),
        (
            "f.parquet",
            parquet(arch=[[a] for a in good], accuracy=[1.0] * 5),
            ("arch",),
        ),
        ("f.parquet", parquet(accuracy=[1.0] * 5), ("arch",)),
        ("f", rng.randbytes(200) + b"\xff", (field, "arch")),
    ]
    wrong = rng.choice(
        ("nan", "inf", "-inf", "best", "", "1,2", "0.9%", "None")
    )
    numbers = ["0.1", "0.2", "0.3", "0.4", wrong]
    rows = "".join(f'{a},"{n}"\n' for a, n in zip(quoted, numbers, strict=True))
    truth: list[tuple[str, bytes | None, tuple[str, ...]]] = [
        ("f.csv", ("arch,accuracy\n" + rows).encode(), ("accuracy", "truth")),
        (
            "f.csv",
            ("arch,accuracy\n" + "".join(f"{a}\n" for a in quoted)).encode(),
            ("accuracy",),
        ),
        (
            "f.csv",
            ("arch,acc\n" + "".join(f"{a},1\n" for a in quoted)).encode(),
            ("accuracy",),
        ),
        (
            "f.csv",
            (
                "arch,accuracy\n"
                + "".join(f"{a},1\n" for a in quoted[: rng.randrange(1, 3)])
            ).encode(),
            ("truth",),
        ),
        (
            "f.parquet",
            parquet(arch=good, accuracy=[True, None, False, True, True]),
            ("accuracy",),
        ),
        ("f.parquet", parquet(arch=good, accuracy=[["x"]] * 5), ("accuracy",)),
        ("f.txt", "\n".join(good).encode(), ("accuracy",)),
    ]
    name, data, names = rng.choice(
        truth if field == "truth" and rng.random() < 0.5 else both
    )
    verb = "rank" if field == "truth" else "score"
    there = {name: data} if data is not None or rng.random() < 0.5 else {}
    return Case(
        [verb, f"--{field}", name, "--workdir", f"BASE/{space}"], names, there
    )


def data(rng: random.Random, number: int, archs: Archs) -> Case:
    """Images that cannot be read, or that nothing can be trained on."""
    good = images(rng)
    whole = npz(**good)
    x, y = good["x_train"], good["y_train"]
    name, cut = rng.choice(list(good)), rng.randrange(len(whole) - 1)
    labels, pixels = (
        rng.choice(("y_train", "y_test")),
        rng.choice(("x_train", "x_test")),
    )
    broken = rng.choice(
        (
            whole[:cut],
            b"",
            rng.randbytes(200),
            npz(**{k: v for k, v in good.items() if k != name}),
            npz(**good | {name: good[name][:-1]}),
            npz(**good | {name: good[name][:0]}),
            npz(**good | {name: np.float64(3)}),
            npz(**good | {name: good[name].astype(str)}),
            npz(**good | {labels: y.astype(np.float32)}),
            npz(**good | {labels: y - 1}),
            npz(**good | {labels: y.astype(np.int64) + 2**40}),
            npz(**good | {labels: y[:, None]}),
            npz(**good | {"y_train": 2 * y}),
            npz(**good | {"y_train": 0 * y}),
            npz(**good | {"y_test": y + 1}),
            npz(
                **good
                | {
                    pixels: np.full(
                        x.shape, rng.choice((np.nan, np.inf, 3)), np.float32
                    )
                }
            ),
            npz(**good | {pixels: x.astype(bool)}),
            npz(**good | {pixels: x[..., None]}),
            npz(**good | {pixels: x[:, :, :7]}),
            npz(**good | {pixels: x[:, 0, 0, 0]}),
            npz(**good | {pixels: x.astype(complex)}),
        )
    )
    place = rng.randrange(4)
    if place == 0:
        words, names = (
            [
                "--dataset",
                rng.choice(
                    (
                        "no-set",
                        "",
                        ".",
                        "..",
                        "a b",
                        "x/y:1",
                        "no.npz",
                        "d.npz",
                        "\n",
                        "é",
                    )
                ),
            ],
            (),
        )
        return Case(
            ["search", *words], (*names, "data.dataset"), {"d.npz": None}
        )
    if place == 1:
        words = [
            "--dataset",
            "cifar10",
            "--data-dir",
            rng.choice(("no", "", "junk", "file", "file/x", "x" * 300)),
        ]
        there = {
            "junk/cifar10/3.0.2/features.json": b"{",
            "junk/cifar10/3.0.2/dataset_info.json": b"[]",
            "file": b"x",
        }
        return Case(
            ["search", *words], ("data.data_dir", "data.dataset"), there
        )
    return Case(
        ["search", "--dataset", rng.choice(("d.npz", "./d.npz"))],
        ("data.dataset",),
        {"d.npz": broken},
    )


def places(rng: random.Random, number: int, archs: Archs) -> Case:
    """A work directory or an output that cannot be."""
    space = rng.choice(list(archs))
    if rng.random() < 0.5:
        there: dict[str, bytes | None] = {
            "file": b"x",
            "dir/config.json": None,
            "other": b"{}",
        }
        where = rng.choice(
            ("file", "file/run", "/dev/null", "/proc/run", "x" * 300, "", "dir")
        )
        words = rng.choice(
            (
                ["search"],
                ["train"],
                ["score", "--random", "3"],
                ["retrain"],
                ["report"],
                ["top"],
            )
        )
        return Case([*words, "--workdir", where], ("workdir",), there)
    where = rng.choice(
        (
            "no/out.parquet",
            "file/out.parquet",
            "dir",
            "",
            "/proc/out.parquet",
            "x" * 300,
            "/dev/null/x",
        )
    )
    words = rng.choice(
        (["score", "--random", "3"], ["top"], ["score", "--all"])
    )
    return Case(
        [*words, "--workdir", f"BASE/{space}", "--out", where],
        ("out",),
        {"file": b"x", "dir": None},
    )


def verbs(rng: random.Random, number: int, archs: Archs) -> Case:
    """Arguments of the other verbs."""
    space = rng.choice(list(archs))
    run = ["--workdir", f"BASE/{space}"]
    good = {"a.txt": "\n".join(archs[space][:5]).encode()}
    topology = rng.choice(
        (
            "v1:2x2",
            "",
            "h100:8",
            "5e:2x2",
            "2x2",
            ":",
            "v5e:",
            "V5E:4x4",
            "tpu",
            "v5e;2x2",
        )
    )
    no_integer, negative = (
        rng.choice(NOT_INTEGERS),
        str(-rng.randrange(1, 10**6)),
    )
    count = rng.choice(("number", "max_params", "max_flops"))
    choices: list[tuple[list[str], tuple[str, ...]]] = [
        (
            ["top", *given(rng, count, rng.choice((no_integer, negative)))],
            (count,),
        ),
        (["top", "--number", "0"], ("number",)),
        (["top", "--max-params", "1"], ("max_params",)),
        (
            ["top", "--pareto", rng.choice(("size", "", "Params", "loss"))],
            ("pareto",),
        ),
        (["top", rng.choice(("--nmber", "--all", "--archs"))], ("top",)),
        (
            [
                "score",
                *given(rng, "random", rng.choice((no_integer, negative, "0"))),
            ],
            ("random",),
        ),
        (
            [
                "score",
                "--random",
                "3",
                *given(
                    rng,
                    "seed",
                    rng.choice((no_integer, negative, "9" * 12, "9" * 40)),
                ),
            ],
            ("seed",),
        ),
        (["score", "--random", "3", "--all"], ("score",)),
        (["score", "--archs", "a.txt", "--random", "2"], ("score",)),
        (["score"], ("score",)),
        (["score", "--archs"], ("archs",)),
        (["score", "--random", "3", "--number", "2"], ("number",)),
        (
            ["score", "--random", "3", "--seed", "9"],
            ("workdir",),
        ),  # nothing is trained
        (["rank"], ("truth",)),
        (
            [
                "rank",
                "--truth",
                "a.txt",
                "--column",
                rng.choice(("", "arch2", "\n")),
            ],
            ("column", "truth"),
        ),
        (["rank", "--truth", "none.csv"], ("truth",)),
        (["retrain", "--train.steps", "3"], ("train.steps",)),
        (["report", "now"], ("now",)),
        (["report"], ("workdir",)),
        (
            ["search", "--train.steps", "9"],
            ("train.steps",),
        ),  # another configuration than the run's
        (["train", "--seed", "7"], ("seed",)),
    ]
    words, names = choices[number % len(choices)]
    compiled = rng.choice(
        (
            ["--topology", topology],
            ["--topology"],
            ["--json"],
            [
                "--preset",
                "small",
                *given(rng, "train.batch", "0"),
                "--topology",
                topology,
            ],
        )
    )
    if number >= len(choices) and rng.random() < 0.4:
        return Case(["compile", *compiled], ("topology", "train.batch"))
    if (
        words == ["score"]
        or rng.random() > 0.2
        or words[0] in ("search", "train")
    ):
        return Case([*words, *run], names, good)
    return Case([*words, "--workdir", "none"], (*names, "workdir"), good)


CATEGORIES: dict[Any, int] = {
    values: 110,
    huge: 40,
    flags: 40,
    combinations: 50,
    config_json: 90,
    strings: 50,
    files: 35,
    data: 25,
    places: 25,
    verbs: 35,
}
