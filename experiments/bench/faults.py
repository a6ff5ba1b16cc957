"""Is anything lost, changed or left hanging when a run is killed, damaged or out of disk?

Claim: after ``kill -9`` at random moments of train, score and search, of one process or of one or both of two, after
damage to what is saved, on a full disk and in a read-only directory: what was finished is still there, the run goes on
to the training state and scores of an undisturbed one, bit for bit, every failure is one line, and nothing hangs.
Command: python experiments/bench/faults.py [--kills N] [--seed S] [--only kills damage disk] [--json]. Two CPU devices
per process; a tiny run on scikit-learn's digits. --directory keeps undisturbed runs for the next call. Full disks and
read-only directories are mounted in memory, which needs root. Exit code 1 if anything failed.
"""

import itertools
import json
import os
import random
import re
import shlex
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import pyarrow.parquet as pq
import tyro

HANG_S = (
    60  # once one of the processes has failed the others end within this time
)
END_S = 300  # for a whole run
FLAGS = shlex.split("""
    --space nasbench201 --generator shared --cells.channels 4 --cells.cells 1 --data.limit 120
    --train.steps 480 --train.batch 16 --train.every 10 --search.number 400 --search.perturbed 60 --search.greedy 40
    --retrain.top 2 --retrain.sample 4 --retrain.train.steps 40 --retrain.train.batch 16
""")
WORDS = {
    "train": ["train", *FLAGS],
    "score": ["score", "--random", "2000"],
    "search": ["search", *FLAGS],
}
PROGRESS = re.compile(r"(train|score|search|retrain) .*\d+/\d+|\s*$")
Verb = Literal["train", "score", "search"]


@dataclass(frozen=True)
class Args:
    kills: int = 50
    seed: int = 0  # of the random moments, victims, damage and room on disk
    only: tuple[Literal["kills", "damage", "disk"], ...] = (
        "kills",
        "damage",
        "disk",
    )
    verbs: tuple[Verb, ...] = ("train", "score", "search")
    processes: tuple[Literal[1, 2], ...] = (1, 2)
    directory: Path = Path("runs/faults")
    json: bool = False  # one JSON object as the last line


class Broken(Exception):  # noqa: N818
    """What is claimed does not hold."""


def must(holds: bool, what: str) -> None:
    if not holds:
        raise Broken(what)


# --- running --------------------------------------------------------------------------------------------------------


class Started:
    """A verb under way, in one process or two."""

    def __init__(self, verb: str, workdir: Path, processes: int = 1):
        with socket.create_server(("127.0.0.1", 0)) as server:
            port = server.getsockname()[1]
        command = [
            sys.executable,
            "-m",
            "jaxhypernas",
            *WORDS[verb],
            "--workdir",
            str(workdir),
        ]
        command += ["--distributed"] * (processes > 1)
        environment = {
            **os.environ,
            "JAX_PLATFORMS": "cpu",
            "JAX_NUM_CPU_DEVICES": "2",
            "COLUMNS": "200",
        }
        environment |= {
            "JAX_COORDINATOR_ADDRESS": f"127.0.0.1:{port}",
            "JAX_NUM_PROCESSES": str(processes),
        }
        self.logs = [tempfile.TemporaryFile("w+") for _ in range(processes)]  # noqa: SIM115
        self.processes = [
            subprocess.Popen(
                command,
                stdout=-3,
                stderr=log,
                env={**environment, "JAX_PROCESS_ID": str(i)},
            )
            for i, log in enumerate(self.logs)
        ]

    def end(self, seconds: float) -> list[int | None]:
        """The exit codes at most ``seconds`` from now, or `HANG_S` from when one has failed; None: still running."""
        until, failed = time.monotonic() + seconds, False
        while (
            None in (codes := [process.poll() for process in self.processes])
            and time.monotonic() < until
        ):
            if any(codes) and not failed:
                until, failed = min(until, time.monotonic() + HANG_S), True
            time.sleep(0.01)
        return codes

    def kill(self, victims: list[int]) -> None:
        for victim in victims:
            self.processes[victim].kill()
            self.processes[victim].wait()

    def finished(self) -> list[int]:
        """The exit codes at the end; Broken if one hangs."""
        codes = self.end(END_S)
        self.kill(list(range(len(codes))))
        must(None not in codes, "hangs")
        return [code for code in codes if code is not None]

    def said(self, process: int) -> list[str]:
        """What it wrote on standard error but for progress."""
        self.logs[process].seek(0)
        return [
            line
            for line in self.logs[process].read().splitlines()
            if not PROGRESS.match(line)
        ]


def finish(
    verb: str, workdir: Path, processes: int = 1, most: int = 0
) -> list[str]:
    """Run to the end; what it said, at most so many lines."""
    started = Started(verb, workdir, processes)
    codes = started.finished()
    said = [
        line for process in range(processes) for line in started.said(process)
    ]
    must(not any(codes), f"exit codes {codes}: {said[:1]} {said[-1:]}")
    must(len(said) <= most, f"{len(said)} lines, not {most}: {said[:3]}")
    return said


def one_line(started: Started, process: int, code: int) -> str:
    """What a process that failed said."""
    said = started.said(process)
    must(
        code not in (0, 1)
        and len(said) == 1
        and said[0].startswith("jaxhypernas: "),
        f"process {process} ended with {code} and {len(said)} lines, not one: {said[:1]} {said[-1:]}",
    )
    return said[0]


def refused(text: str, verb: str, workdir: Path, processes: int = 1) -> str:
    """Run what cannot go on: a line of each process, this text in one of them."""
    started = Started(verb, workdir, processes)
    lines = [
        one_line(started, process, code)
        for process, code in enumerate(started.finished())
    ]
    must(any(text in line for line in lines), f"{text!r} is not in {lines}")
    return next(line for line in lines if text in line)


# --- what is on disk ------------------------------------------------------------------------------------------------


def steps(workdir: Path) -> list[int]:
    return sorted(
        int(path.name)
        for path in workdir.glob("checkpoints/*")
        if path.name.isdigit()
    )


def shards(workdir: Path) -> dict[str, bytes]:
    """Score and retrain tables' files, and the configuration."""
    names = ("scores/*.parquet", "retrain/*.parquet", "config.json")
    return {
        str(path.relative_to(workdir)): path.read_bytes()
        for name in names
        for path in workdir.glob(name)
    }


def metrics(workdir: Path) -> list[dict]:
    path = workdir / "metrics.jsonl"
    return (
        [json.loads(line) for line in path.read_text().splitlines()]
        if path.exists()
        else []
    )


class Moment:
    """What a run has finished at a moment."""

    def __init__(self, workdir: Path):
        self.newest, self.shards, self.lines = (
            max(steps(workdir), default=0),
            shards(workdir),
            len(metrics(workdir)),
        )

    def is_kept(self, workdir: Path) -> None:
        """Broken if something of it is lost, changed or was done again."""
        now = shards(workdir)
        lost = [
            name
            for name, content in self.shards.items()
            if now.get(name) != content
        ]
        must(not lost, f"lost or changed: {lost}")
        must(
            max(steps(workdir), default=0) >= self.newest,
            f"lost: checkpoint {self.newest}",
        )
        trained = [
            line["step"]
            for line in metrics(workdir)[self.lines :]
            if "step" in line
        ]
        must(
            min(trained, default=self.newest + 1) > self.newest,
            f"trained again from below {self.newest}",
        )

    def __str__(self) -> str:
        return f"step {self.newest}, {len(self.shards)} files"


def rows(workdir: Path, table: str) -> Counter:
    """How often each row is there."""
    read = (pq.read_table(path) for path in workdir.glob(f"{table}/*.parquet"))
    return Counter(
        tuple(map(repr, row.items()))
        for part in read
        for row in part.to_pylist()
    )


def equal(workdir: Path, undisturbed: Path) -> None:
    """Broken if rows or training states differ, the states by the checksums of their leaves."""
    for table in ("scores", "retrain"):
        must(
            rows(workdir, table) == rows(undisturbed, table),
            f"{table} differ from the undisturbed run's",
        )
    record, other = (
        {
            s: (d / f"checkpoints/{s}/record/metadata").read_text()
            for s in steps(d)
        }
        for d in (workdir, undisturbed)
    )
    must(
        record == other,
        f"training states differ: {sorted(record)}, {sorted(other)}",
    )


# --- the campaign ---------------------------------------------------------------------------------------------------


@dataclass
class Campaign:
    args: Args
    random: random.Random
    cases: list[dict] = field(default_factory=list)

    @contextmanager
    def case(self, what: str) -> Iterator[dict]:
        """One fault; to be put in: its ``outcome``. One line."""
        began = time.monotonic()
        case: dict = {"what": what, "outcome": "", "ok": True}
        try:
            yield case
        except Broken as broken:
            case |= {"outcome": str(broken), "ok": False}
        case["seconds"] = round(time.monotonic() - began, 1)
        self.cases.append(case)
        print(
            f"{'ok' if case['ok'] else 'FAILED':6} {what}: {case['outcome']} ({case['seconds']} s)",
            flush=True,
        )

    def path(self, name: str) -> Path:
        return self.args.directory.resolve() / name

    def begun(self, verb: str, workdir: Path) -> Path:
        """A directory as it is before the verb: scoring takes a trained run."""
        shutil.rmtree(workdir, ignore_errors=True)
        if verb == "score":
            shutil.copytree(self.undisturbed("train")[0], workdir)
        return workdir

    def undisturbed(self, verb: str, processes: int = 1) -> tuple[Path, float]:
        """A run of the verb, and the seconds it took; of an earlier call if there is one."""
        workdir = self.path(f"{verb}{processes}")
        taken = workdir.with_suffix(".seconds")
        if not taken.exists():
            finish(verb, self.begun(verb, workdir), processes)  # compiles
            self.begun(verb, workdir)
            began = time.monotonic()
            finish(verb, workdir, processes)
            taken.write_text(f"{time.monotonic() - began:.2f}")
        return workdir, float(taken.read_text())

    def truth(self, verb: str, processes: int) -> Path:
        """What a run must come to: scores are those of one process, however many there are."""
        return self.undisturbed(verb, 1 if verb == "score" else processes)[0]


def kills(campaign: Campaign) -> None:
    """Runs with up to four kills each, then brought to the end."""
    args, draw, left, deaths = (
        campaign.args,
        campaign.random,
        campaign.args.kills,
        [],
    )
    kinds = itertools.cycle(
        (verb, processes) for processes in args.processes for verb in args.verbs
    )
    while left:
        verb, processes = next(kinds)
        truth, (_, whole) = (
            campaign.truth(verb, processes),
            campaign.undisturbed(verb, processes),
        )
        workdir, moments = campaign.begun(verb, campaign.path("killed")), []
        for _ in range(min(left, draw.randint(1, 4))):
            victims = draw.choice([[0], [1], [0, 1]]) if processes == 2 else [0]
            at = draw.uniform(0, whole)
            with campaign.case(
                f"{verb}, {processes} process(es), kill {victims} at {at:.1f} of {whole:.1f} s"
            ) as case:
                started = Started(verb, workdir, processes)
                if None not in (codes := started.end(at)):
                    must(
                        not any(codes), f"exit codes {codes}: {started.said(0)}"
                    )
                    case["outcome"] = "had ended"
                    break
                left -= 1
                started.kill(victims)
                began = time.monotonic()
                codes = started.finished()
                for other in set(range(processes)) - set(victims):
                    deaths.append(round(time.monotonic() - began, 1))
                    if codes[other]:
                        case["outcome"] = (
                            f"the other ended after {deaths[-1]} s: {one_line(started, other, codes[other])}; "
                        )
                moments.append(Moment(workdir))
                case["outcome"] += f"there: {moments[-1]}"
        with campaign.case(
            f"{verb}, {processes} process(es), resumed after {len(moments)} kills"
        ) as case:
            finish(verb, workdir, processes)
            for moment in moments:
                moment.is_kept(workdir)
            equal(workdir, truth)
            case["outcome"] = "nothing lost, all equal"
    if deaths:
        print(
            f"a process whose peer was killed ended after {max(deaths)} s at most, of {len(deaths)} times"
        )


HARMS = {
    "flipped byte": lambda draw, path: path.write_bytes(
        flipped(draw, path.read_bytes())
    ),
    "truncated": lambda draw, path: os.truncate(
        path, draw.randrange(path.stat().st_size)
    ),
    "missing": lambda draw, path: path.unlink(),
}


def flipped(draw: random.Random, content: bytes) -> bytes:
    place = draw.randrange(len(content))
    return (
        content[:place] + bytes([content[place] ^ 0x80]) + content[place + 1 :]
    )


def damage(campaign: Campaign) -> None:
    """What is saved is damaged, and the run goes on."""
    draw, trained, scored = (
        campaign.random,
        campaign.undisturbed("train")[0],
        campaign.undisturbed("score")[0],
    )
    workdir, newest = campaign.path("damaged"), steps(trained)[-1]
    files = sorted(
        p.relative_to(trained)
        for p in trained.glob(f"checkpoints/{newest}/**/*")
        if p.is_file()
    )
    kinds = {
        re.sub(r"/[0-9a-f]{32}$", "/*", str(file)): file
        for file in draw.sample(files, len(files))
    }
    cases = [(name, "flipped byte", file) for name, file in kinds.items()]
    for harm in ("truncated", "missing"):
        cases += [(str(file), harm, file) for file in draw.sample(files, 3)]

    def copy(of: Path) -> Path:
        shutil.rmtree(workdir, ignore_errors=True)
        return Path(shutil.copytree(of, workdir))

    for name, harm, file in cases:
        with campaign.case(f"{name}: {harm}") as case:
            HARMS[harm](draw, copy(trained) / file)
            case["outcome"] = "; ".join(
                ["all equal", *finish("train", workdir, most=1)]
            )
            equal(workdir, trained)
    with campaign.case("empty step directory") as case:
        shutil.rmtree(copy(trained) / f"checkpoints/{newest}")
        (workdir / f"checkpoints/{newest}").mkdir()
        case["outcome"] = "; ".join(
            ["all equal", *finish("train", workdir, most=1)]
        )
        equal(workdir, trained)
    with campaign.case("all steps without a record") as case:
        for step in steps(copy(trained)):
            shutil.rmtree(workdir / f"checkpoints/{step}/record")
        case["outcome"] = refused("checkpoints:", "score", workdir)
        must(steps(workdir) == steps(trained), "steps were removed")
    for harm in HARMS:
        with campaign.case(f"a shard of scores: {harm}") as case:
            HARMS[harm](
                draw, draw.choice(sorted(copy(scored).glob("scores/*.parquet")))
            )
            case["outcome"] = "; ".join(
                ["all equal", *finish("score", workdir, most=1)]
            )
            equal(workdir, scored)
        with campaign.case(f"config.json: {harm}") as case:
            HARMS[harm](draw, copy(scored) / "config.json")
            case["outcome"] = refused("workdir:", "score", workdir)
            shutil.copy(scored / "config.json", workdir)
            finish("score", workdir)
            equal(workdir, scored)


@contextmanager
def mounted(place: Path) -> Iterator[Path]:
    """A disk of 64 MiB."""
    place.mkdir(parents=True, exist_ok=True)
    subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", place], check=True
    )
    try:
        yield place
    finally:
        subprocess.run(["umount", "-l", place], check=True)


def disk(campaign: Campaign) -> None:
    """A disk that is full at some time, a directory that cannot be written."""
    if os.geteuid() != 0:
        print(
            "disk: left out, as a disk in memory cannot be mounted without root"
        )
        return
    for processes in campaign.args.processes:
        for verb in campaign.args.verbs:
            truth = campaign.truth(verb, processes)
            for room in (
                campaign.random.uniform(0, 0.9) for _ in range(3 // processes)
            ):
                full(campaign, verb, processes, truth, room)
            if processes == 1:
                read_only(campaign, verb, truth)


def full(
    campaign: Campaign, verb: str, processes: int, truth: Path, room: float
) -> None:
    """The disk has so much of the room that the verb needs."""
    with (
        mounted(campaign.path("disk")) as place,
        campaign.case(
            f"{verb}, {processes} process(es), disk with {room:.0%} of the room"
        ) as case,
    ):
        free = shutil.disk_usage(place).free
        shutil.copytree(truth, place / "run")
        needed = free - shutil.disk_usage(place).free
        campaign.begun(verb, place / "run")
        needed -= free - shutil.disk_usage(place).free
        filler = place / "filler"
        filler.write_bytes(
            bytes(shutil.disk_usage(place).free - int(room * needed))
        )
        case["outcome"] = refused(
            "No space left on device", verb, place / "run", processes
        )
        moment = Moment(place / "run")
        filler.unlink()
        finish(verb, place / "run", processes)
        moment.is_kept(place / "run")
        equal(place / "run", truth)


def read_only(campaign: Campaign, verb: str, truth: Path) -> None:
    """A run that has still to do something cannot, until the directory is writable."""
    with (
        mounted(campaign.path("disk")) as place,
        campaign.case(f"{verb}, read-only directory") as case,
    ):
        workdir = place / "run"
        shutil.copytree(truth, workdir)
        if verb == "train":
            shutil.rmtree(workdir / f"checkpoints/{steps(truth)[-1]}")
        else:
            max(workdir.glob("scores/*.parquet")).unlink()
        moment = Moment(workdir)
        subprocess.run(["mount", "-o", "remount,ro", place], check=True)
        case["outcome"] = refused("Read-only file system", verb, workdir)
        subprocess.run(["mount", "-o", "remount,rw", place], check=True)
        finish(verb, workdir)
        moment.is_kept(workdir)
        equal(workdir, truth)


def main(args: Args) -> None:
    campaign = Campaign(args, random.Random(args.seed))
    args.directory.mkdir(parents=True, exist_ok=True)
    for part in args.only:
        with campaign.case(
            f"undisturbed runs of {part}"
        ):  # what is outside of all other cases
            {"kills": kills, "damage": damage, "disk": disk}[part](campaign)
    failed = [case for case in campaign.cases if not case["ok"]]
    print(f"{len(campaign.cases)} cases, {len(failed)} failed")
    if args.json:
        print(json.dumps({"cases": campaign.cases}))
    sys.exit(bool(failed))


if __name__ == "__main__":
    main(tyro.cli(Args))
