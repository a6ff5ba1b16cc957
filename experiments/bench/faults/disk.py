"""A disk that is full at some time, and a directory that cannot be written."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from campaign import Campaign
from saved import Moment, equal, newest_step
from verbs import finish, refused


def disk(campaign: Campaign) -> None:
    """Runs each verb on full disks and in a read-only directory."""
    args = campaign.args
    if os.geteuid() != 0:
        print("disk: left out, mounting a disk in memory needs root")
        return
    for processes in args.processes:
        for verb in args.verbs:
            for _ in range(3 // processes):
                room = campaign.random.uniform(0, 0.9)
                _full(campaign, verb, processes, room)
            _read_only(campaign, verb, processes)


@contextmanager
def _mounted(place: Path) -> Iterator[Path]:
    """A disk of 64 MiB."""
    place.mkdir(parents=True, exist_ok=True)
    mount = ["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", place]
    subprocess.run(mount, check=True)
    try:
        yield place
    finally:
        subprocess.run(["umount", "-l", place], check=True)


def _free(place: Path) -> int:
    return shutil.disk_usage(place).free


def _full(campaign: Campaign, verb: str, processes: int, room: float) -> None:
    """The disk has a share of the room that the verb needs."""
    truth = campaign.truth(verb, processes)
    fault = f"disk with {room:.0%} of the room"
    with (
        _mounted(campaign.path("disk")) as place,
        campaign.case(f"{verb}, {processes} process(es), {fault}") as case,
    ):
        workdir = place / "run"
        empty = _free(place)
        shutil.copytree(truth, workdir)
        after = empty - _free(place)
        campaign.begun(verb, workdir)
        before = empty - _free(place)

        filler = place / "filler"
        filler.write_bytes(bytes(_free(place) - int(room * (after - before))))
        case.outcome = refused(
            "No space left on device", verb, workdir, processes
        )
        moment = Moment(workdir)
        filler.unlink()
        finish(verb, workdir, processes)
        moment.is_kept(workdir)
        equal(workdir, truth)


def _read_only(campaign: Campaign, verb: str, processes: int) -> None:
    """A run with something left to do cannot go on until it can write."""
    truth = campaign.truth(verb, processes)
    with (
        _mounted(campaign.path("disk")) as place,
        campaign.case(
            f"{verb}, {processes} process(es), read-only directory"
        ) as case,
    ):
        workdir = place / "run"
        shutil.copytree(truth, workdir)
        if verb == "train":
            shutil.rmtree(workdir / f"checkpoints/{newest_step(truth)}")
        else:
            max(workdir.glob("scores/*.parquet")).unlink()
        moment = Moment(workdir)
        subprocess.run(["mount", "-o", "remount,ro", place], check=True)
        case.outcome = refused(
            "Read-only file system", verb, workdir, processes
        )
        subprocess.run(["mount", "-o", "remount,rw", place], check=True)
        finish(verb, workdir, processes)
        moment.is_kept(workdir)
        equal(workdir, truth)
