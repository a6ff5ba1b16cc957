"""Random mistakes in commands, configurations and work directories.

A category is a function of random draws, the number of the case and the architectures
of each space. `breakage_fields` breaks values, `breakage_files` files of the user.

Paths are relative to a directory of the case's own; ``BASE/SPACE`` is a run begun in
that space, and ``BASE/new`` one in which nothing is trained.
"""

import string
from collections.abc import Mapping
from random import Random
from typing import Any, NamedTuple

from breakage_fields import FIELDS, NOT_INTEGERS, broken_config, wrong_value
from breakage_files import (
    Archs,
    broken_images,
    listed,
    no_truth,
    npz,
    random_images,
    truth_of,
    unreadable,
    with_a_mistake,
)

from jaxhypernas.cli.flags import Flag
from jaxhypernas.families import FAMILIES
from jaxhypernas.generators import GENERATORS
from jaxhypernas.search import STRATEGIES


class Case(NamedTuple):
    """A command that must be refused."""

    words: list[str]
    """Its words."""

    names: tuple[str, ...]
    """The complaint names one of them."""

    files: Mapping[str, bytes | None] = {}
    """Files that it needs; None: a directory."""


HUGE = {
    "": "seed data.pad train.steps train.batch train.architectures train.ghosts "
    "execution.chunk retrain.sample retrain.train.steps retrain.train.batch "
    "retrain.train.ghosts strategy.number strategy.perturbed space.unit "
    "space.units space.depth space.widening space.slots space.stem_stride "
    "generator.stem generator.growth generator.layers",
    "--strategy evolution": "strategy.tournament strategy.children",
    "--strategy nsga2": "strategy.population",
    "--strategy progressive --space pnas": "strategy.beam",
    "--space nasbench201 --generator shared": "space.channels",
    "--space one_shot --generator shared": "space.cells",
    "--space ghn --generator ghn": "space.nodes space.train_nodes",
    "--space nasbench201 --generator ghn": "generator.hidden generator.decoder "
    "generator.passes",
}
"""Fields whose numbers ask for memory or time, by the flags with which they do."""


def in_words(rng: Random, flag: Flag, value: str) -> list[str]:
    """A flag with its value, in one word or two."""
    if value.startswith("-") or rng.random() < 0.3:
        return [f"{flag.name}={value}"]
    return [flag.name, value]


def values(rng: Random, number: int, archs: Archs) -> Case:
    """A field with a value that is out of range or of another type."""
    fields = [f for f in FIELDS if f.flag.kind not in (bool, str | None)]
    flag, chosen = fields[number % len(fields)]
    verb = [rng.choice(("search", "search", "train"))]
    if flag.place != "data.dataset" and rng.random() < 0.25:
        verb = ["compile", "--topology", "v5e:2x2"]
    wrong = in_words(rng, flag, wrong_value(rng, flag))
    return Case([*verb, *chosen, *wrong], (flag.place,))


def huge(rng: Random, number: int, archs: Archs) -> Case:
    """A number for which there is neither memory nor time."""
    fields = [(chosen, p) for chosen in HUGE for p in HUGE[chosen].split()]
    chosen, place = fields[number % len(fields)]
    flag = f"--{place}".replace("_", "-")
    size = 4 * 10 ** rng.randrange(10, 19)
    return Case(["search", *chosen.split(), f"{flag}={size}"], (place,))


def flags(rng: Random, number: int, archs: Archs) -> Case:
    """A flag that is misspelt or lacks its value, or a word that belongs nowhere."""
    flag, chosen = rng.choice([f for f in FIELDS if f.flag.kind is not bool])
    verb = rng.choice(("search", "train"))
    match number % 6:
        case 0:
            words = [verb, *chosen, "--seed", "3", flag.name]
            return Case(words, (flag.place,))
        case 1:
            short = "dataset data_dir max_params max_flops preset workdir"
            name = rng.choice(short.split())
            names = (name, f"data.{name}", f"search.{name}")
            return Case([verb, f"--{name}".replace("_", "-")], names)
        case 2:
            verbs = listed("serch Search -search train.py scores", "")
            return Case([rng.choice(verbs), flag.name, "3"], ("verb",))
        case 3:
            extra = rng.choice(listed("extra -x steps=3 3 --train --data"))
            names = (extra, extra.strip("-"), verb)
            return Case([verb, "--seed", "3", extra], names)
    wrong = misspelt(rng, flag.name)
    return Case([verb, *chosen, wrong, "3"], (wrong[2:],))


def misspelt(rng: Random, flag: str) -> str:
    """A flag with a letter too few, too many, or another."""
    at = rng.randrange(2, len(flag) - 1)
    letter = rng.choice(string.ascii_lowercase.replace(flag[at], ""))
    swapped = flag[:at] + flag[at + 1] + flag[at] + flag[at + 2 :]
    if swapped == flag:
        swapped += letter
    dropped = flag[:at] + flag[at + 1 :]
    doubled = flag[:at] + letter + flag[at:]
    changed = flag[:at] + letter + flag[at + 1 :]
    return rng.choice((swapped, dropped, doubled, changed))


def from_line(line: str, draws: dict[str, Any], **files: bytes) -> Case:
    """A case from a line of a table: words with draws in braces, then names."""
    words, names = line.split(" | ")
    there = {
        name.replace("_", "."): content for name, content in files.items()
    }
    return Case(
        [word.format(**draws) for word in words.split()],
        tuple(names.split()),
        there,
    )


COMBINATIONS = """
--strategy progressive --space {fixed} | strategy
--train.path-dropout 0.{low} --space {fixed} | train.path_dropout
--space ghn --generator {own} --space.train-nodes 2 | space.train_nodes
--execution.form fused --space {unfused} | execution.form
--space.stem-stride {stride} | space.stem_stride space
--space {cell} --dataset small.npz | space
--data.limit {few} --data.valid 0.1 --space {space} | data.valid
--data.limit {digit} --generator {generator} | data.limit
--data.limit 100 --data.valid 1e-{digit}9 | data.valid
--data.limit 100 --data.valid 0.999{digit} | data.valid
--strategy {old} --strategy.number {few} --strategy.population 60 | strategy.population
--max-params {low} --strategy {drawn} | search.max_params
--max-flops {low} --space {cell} --generator shared --strategy random | search.max_flops
--train.architectures {odd} --train.batch 30 --space {space} | train.batch
--train.batch 2097152 --space {space} | train.batch
--generator standalone --strategy {strategy} --score.batch 1 | score.batch
--space.units {units} | space.widening space.units
--space.compression 5 | space.units space.compression
--space.max-kernel {kernel} | space.max_kernel
--space.stem-kernel {even} | space.stem_kernel
--preset {preset}x --seed 1 | preset
--preset {paper} --data-dir none | data.data_dir
--space {cell} --space.slots 3 | space.slots
--generator standalone --data.stream --strategy random | data.stream
"""
CELLS = ("nasbench101", "nasbench201", "ghn", "pnas", "one_shot")


def combinations(rng: Random, number: int, archs: Archs) -> Case:
    """Components that are in order, but do not fit each other."""
    lines = COMBINATIONS.strip().splitlines()
    line = lines[number % len(lines)]
    choices: dict[str, Any] = {
        "fixed": ("memory_bank", "nasbench101"),
        "own": ("shared", "smash"),
        "unfused": sorted(set(FAMILIES) - {"nasbench201"}),
        "stride": (4, 8, 99),
        "cell": CELLS,
        "space": list(FAMILIES),
        "generator": list(GENERATORS),
        "strategy": list(STRATEGIES),
        "old": ("evolution", "nsga2"),
        "drawn": ("random", "smash"),
        "low": range(1, 100),
        "few": range(10, 60),
        "digit": range(1, 10),
        "odd": (1, 3, 5, 7),
        "units": range(5, 20),
        "kernel": (1, 2, 4, 6, 8, 9),
        "even": (2, 4, 6),
        "preset": ("big", "smal", ""),
        "paper": ("small-cifar", "ghn-paper", "pnas-paper"),
    }
    draws = {name: rng.choice(several) for name, several in choices.items()}
    shape = rng.choice((6, 7, 10)), rng.choice((8, 5))
    small = npz(**random_images(rng, *shape))
    return from_line(f"search {line}", draws, small_npz=small)


VERBS_OF_RUNS = ("search", "train", "score --random 3", "score --all")
VERBS_OF_RUNS += ("retrain", "report")


def config_json(rng: Random, number: int, archs: Archs) -> Case:
    """A work directory whose config.json is broken."""
    words = [*rng.choice(VERBS_OF_RUNS).split(), "--workdir", "run"]
    content, names = broken_config(rng)
    return Case(words, names, {"run/config.json": content})


def strings(rng: Random, number: int, archs: Archs) -> Case:
    """A string that is no architecture, among others that are."""
    space = rng.choice(list(archs))
    lines = with_a_mistake(rng, space, archs, far=number % 20 == 7)
    run = ["--workdir", f"BASE/{space}"]
    if rng.random() < 0.4:
        words = ["rank", "--truth", "truth.csv", *run]
        return Case(words, ("arch", "truth"), {"truth.csv": truth_of(lines)})
    out = rng.choice(([], ["--out", "out.parquet"]))
    words = ["score", "--archs", "archs.txt", *out, *run]
    return Case(
        words, ("arch", "archs"), {"archs.txt": "\n".join(lines).encode()}
    )


def files(rng: Random, number: int, archs: Archs) -> Case:
    """A file of architectures, or of truth, that cannot be used."""
    space = rng.choice(list(archs))
    good = rng.sample(archs[space], 5)
    verb, field = rng.choice((("score", "archs"), ("rank", "truth")))
    mistakes = unreadable(rng, good, field)
    if field == "truth" and rng.random() < 0.5:
        mistakes = no_truth(rng, good)
    name, content, names = rng.choice(mistakes)
    is_there = content is not None or rng.random() < 0.5
    words = [verb, f"--{field}", name, "--workdir", f"BASE/{space}"]
    return Case(words, names, {name: content} if is_there else {})


def data(rng: Random, number: int, archs: Archs) -> Case:
    """Images that cannot be read, or that nothing can be trained on."""
    if number % 4 == 0:
        sets = listed("no-set . .. x/y:1 no.npz d.npz é", "", "a b", "\n")
        words = ["search", "--dataset", rng.choice(sets)]
        return Case(words, ("data.dataset",), {"d.npz": None})
    if number % 4 == 1:
        prepared = "junk/cifar10/3.0.2"
        there: dict[str, bytes | None] = {
            f"{prepared}/features.json": b"{",
            f"{prepared}/dataset_info.json": b"[]",
            "file": b"x",
        }
        where = rng.choice(listed("no junk file file/x", "", "x" * 300))
        words = ["search", "--dataset", "cifar10", "--data-dir", where]
        return Case(words, ("data.data_dir", "data.dataset"), there)
    words = ["search", "--dataset", rng.choice(("d.npz", "./d.npz"))]
    return Case(words, ("data.dataset",), {"d.npz": broken_images(rng)})


def places(rng: Random, number: int, archs: Archs) -> Case:
    """A work directory or an output that cannot be."""
    there = {"file": b"x", "dir/config.json": None, "other": b"{}"}
    if number % 2:
        wheres = "file file/run /dev/null /proc/run dir"
        where = rng.choice(listed(wheres, "", "x" * 300))
        words = rng.choice((*VERBS_OF_RUNS, "top")).split()
        return Case([*words, "--workdir", where], ("workdir",), there)
    wheres = (
        "no/out.parquet file/out.parquet /proc/out.parquet dir /dev/null/x"
    )
    where = rng.choice(listed(wheres, "", "x" * 300))
    words = rng.choice(("score --random 3", "top", "score --all")).split()
    run = f"BASE/{rng.choice(list(archs))}"
    words += ["--workdir", run, "--out", where]
    return Case(words, ("out",), there)


OTHER_VERBS = """
top --number={bad} | number
top --max-params={bad} | max_params
top --max-flops={bad} | max_flops
top --number 0 | number
top --max-params 1 | max_params
top --pareto {count} | pareto
top {stray} | top nmber all archs
score --random={bad} | random
score --random 0 | random
score --random 3 --seed={seed} | seed
score --random 3 --all | score
score --archs a.txt --random 2 | score
score | score
score --archs | archs
score --random 3 --number 2 | number
rank | truth
rank --truth a.txt --column={column} | column truth
rank --truth none.csv | truth
retrain --train.steps 3 | train.steps
report now | now
report | workdir
search --train.steps 9 | train.steps
train --seed 7 | seed
compile --topology={topology} | topology
compile --topology | topology
compile --json | topology
compile --preset small --topology={topology} --train.batch 0 | topology train.batch
"""
NEEDS_A_TRAINED_RUN = ("score --random 3 --seed 9", "report", "retrain", "top")


def verbs(rng: Random, number: int, archs: Archs) -> Case:
    """Flags of the other verbs."""
    lines = OTHER_VERBS.strip().splitlines()
    topologies = ": v5e: 2x2 v1:2x2 h100:8 5e:2x2 V5E:4x4 tpu v5e;2x2"
    negative = str(-rng.randrange(1, 10**6))
    bad = rng.choice((negative, rng.choice(NOT_INTEGERS)))
    draws = {
        "bad": bad,
        "count": rng.choice(("size", "Params", "loss")),
        "stray": rng.choice(("--nmber", "--all", "--archs")),
        "seed": rng.choice((bad, "9" * 12, "9" * 40)),
        "column": rng.choice(("", "arch2", "\n")),
        "topology": rng.choice(listed(topologies, "")),
    }
    if number >= len(lines):
        words = rng.choice(NEEDS_A_TRAINED_RUN).split()
        where = rng.choice(("BASE/new", "none"))
        return Case([*words, "--workdir", where], ("workdir",))
    space = rng.choice(list(archs))
    good = "\n".join(archs[space][:5]).encode()
    case = from_line(lines[number], draws, a_txt=good)
    if case.words[0] == "compile":
        return case
    return case._replace(words=[*case.words, "--workdir", f"BASE/{space}"])


CATEGORIES = {
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
"""Number of cases of each category."""
