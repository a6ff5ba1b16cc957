"""Damages the files that a run has saved, and lets the run go on."""

import os
import random
import re
import shutil
from collections.abc import Callable
from pathlib import Path

from campaign import Campaign
from claim import must
from saved import equal, steps
from verbs import finish, refused


def _flip(draw: random.Random, path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[draw.randrange(len(content))] ^= 0x80
    path.write_bytes(content)


def _truncate(draw: random.Random, path: Path) -> None:
    os.truncate(path, draw.randrange(path.stat().st_size))


def _remove(draw: random.Random, path: Path) -> None:
    path.unlink()


HARMS: dict[str, Callable[[random.Random, Path], None]] = {
    "flipped byte": _flip,
    "truncated": _truncate,
    "missing": _remove,
}
"""Ways to damage a file."""


def damage(campaign: Campaign) -> None:
    """Damages checkpoints, tables and the configuration."""
    _checkpoint_files(campaign)
    _checkpoint_directories(campaign)
    for harm in HARMS:
        _table(campaign, harm)
        _configuration(campaign, harm)


def _copy(campaign: Campaign, run: Path) -> Path:
    workdir = campaign.path("damaged")
    shutil.rmtree(workdir, ignore_errors=True)
    return Path(shutil.copytree(run, workdir))


def _goes_on(verb: str, workdir: Path, undisturbed: Path) -> str:
    """The outcome of a run that goes on with at most one line; Broken otherwise."""
    said = finish(verb, workdir, most=1)
    equal(workdir, undisturbed)
    return "; ".join(["all equal", *said])


def _checkpoint_files(campaign: Campaign) -> None:
    """Flips a byte in a file of each kind, truncates three files, removes three."""
    trained, _ = campaign.undisturbed("train")
    draw = campaign.random
    newest = steps(trained)[-1]
    files = sorted(
        path.relative_to(trained)
        for path in trained.glob(f"checkpoints/{newest}/**/*")
        if path.is_file()
    )
    # Files that are named by a hash are of one kind.
    kinds = {
        re.sub(r"/[0-9a-f]{32}$", "/*", str(file)): file
        for file in draw.sample(files, len(files))
    }
    cases = [(name, "flipped byte", file) for name, file in kinds.items()]
    for harm in ("truncated", "missing"):
        cases += [(str(file), harm, file) for file in draw.sample(files, 3)]

    for name, harm, file in cases:
        with campaign.case(f"{name}: {harm}") as case:
            workdir = _copy(campaign, trained)
            HARMS[harm](draw, workdir / file)
            case.outcome = _goes_on("train", workdir, trained)


def _checkpoint_directories(campaign: Campaign) -> None:
    trained, _ = campaign.undisturbed("train")
    newest = steps(trained)[-1]
    with campaign.case("empty step directory") as case:
        workdir = _copy(campaign, trained)
        shutil.rmtree(workdir / f"checkpoints/{newest}")
        (workdir / f"checkpoints/{newest}").mkdir()
        case.outcome = _goes_on("train", workdir, trained)
    with campaign.case("all steps without a record") as case:
        workdir = _copy(campaign, trained)
        for step in steps(workdir):
            shutil.rmtree(workdir / f"checkpoints/{step}/record")
        case.outcome = refused("checkpoints:", "score", workdir)
        must(steps(workdir) == steps(trained), "steps were removed")


def _table(campaign: Campaign, harm: str) -> None:
    scored, _ = campaign.undisturbed("score")
    with campaign.case(f"a shard of scores: {harm}") as case:
        workdir = _copy(campaign, scored)
        shards = sorted(workdir.glob("scores/*.parquet"))
        HARMS[harm](campaign.random, campaign.random.choice(shards))
        case.outcome = _goes_on("score", workdir, scored)


def _configuration(campaign: Campaign, harm: str) -> None:
    scored, _ = campaign.undisturbed("score")
    with campaign.case(f"config.json: {harm}") as case:
        workdir = _copy(campaign, scored)
        HARMS[harm](campaign.random, workdir / "config.json")
        case.outcome = refused("workdir:", "score", workdir)
        shutil.copy(scored / "config.json", workdir)
        finish("score", workdir)
        equal(workdir, scored)
