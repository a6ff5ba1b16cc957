"""Several commands at once in one work directory: one works, the others are told."""

import time
from collections import Counter
from pathlib import Path

from campaign import Campaign
from claim import must
from saved import rows
from verbs import Started, failure, finish


def writers(campaign: Campaign) -> None:
    """Starts two commands and two processes of a third at once, again and again."""
    slowest_s = 0.0
    for turn in range(campaign.args.rounds):
        workdir = campaign.begun("score", campaign.path("writers"))
        with campaign.case(f"three commands at once, round {turn}") as case:
            seeds = [3 * turn + i for i in range(3)]
            expected = _expected(campaign, seeds)
            began = time.monotonic()
            started = [_start(workdir, seed) for seed in seeds]
            told_s = _told(started, began)
            slowest_s = max(slowest_s, *told_s)
            for each, seed in zip(started, seeds, strict=True):
                if any(each.finished()):
                    _start(workdir, seed).finished()
            there = rows(workdir, "scores")
            must(
                there == expected,
                f"{(expected - there).total()} rows lost, "
                f"{(there - expected).total()} wrong",
            )
            case.outcome = f"{len(told_s)} told, nothing lost"
    print(f"told {slowest_s:.1f} s after all were started, at most")


def _start(workdir: Path, seed: int) -> Started:
    """Two processes for every third seed, one for the others."""
    processes = 1 if seed % 3 else 2
    return Started("score", workdir, processes, ["--seed", str(seed)])


def _told(started: list[Started], began: float) -> list[float]:
    """The seconds after which the processes of losers had ended, each with a line."""
    told_s = []
    ended = set()
    while True:
        for each in started:
            for i, process in enumerate(each.processes):
                code = process.poll()
                if code is None or process.pid in ended:
                    continue
                ended.add(process.pid)
                if code:
                    told_s.append(time.monotonic() - began)
                    line = failure(each, i, code)
                    must(code == 2 and "is in use" in line, line)
        if len(ended) == sum(len(each.processes) for each in started):
            return told_s
        time.sleep(0.02)


def _expected(campaign: Campaign, seeds: list[int]) -> Counter:
    """The rows of all seeds, one command after the other."""
    workdir = campaign.begun("score", campaign.path("by turns"))
    for seed in seeds:
        finish("score", workdir, more=["--seed", str(seed)])
    return rows(workdir, "scores")
