"""Kills processes of a run at random moments."""

import itertools
import time
from pathlib import Path

from campaign import Campaign
from claim import must
from saved import Moment, equal
from verbs import Started, failure, finish


def kills(campaign: Campaign) -> None:
    """Kills each run up to four times, then brings it to its end."""
    args = campaign.args
    draw = campaign.random
    left = args.kills
    deaths: list[float] = []
    kinds = itertools.cycle(itertools.product(args.processes, args.verbs))
    while left:
        processes, verb = next(kinds)
        truth = campaign.truth(verb, processes)
        campaign.undisturbed(verb, processes)
        workdir = campaign.begun(verb, campaign.path("killed"))
        moments: list[Moment] = []
        for _ in range(min(left, draw.randint(1, 4))):
            had_ended = _kill(
                campaign, verb, processes, workdir, moments, deaths
            )
            if had_ended:
                break
            left -= 1
        resumed = f"resumed after {len(moments)} kills"
        with campaign.case(
            f"{verb}, {processes} process(es), {resumed}"
        ) as case:
            finish(verb, workdir, processes)
            for moment in moments:
                moment.is_kept(workdir)
            equal(workdir, truth)
            case.outcome = "nothing lost, all equal"
    if deaths:
        print(
            f"a process whose peer was killed ended after {max(deaths)} s at most, of "
            f"{len(deaths)} times"
        )


def _kill(
    campaign: Campaign,
    verb: str,
    processes: int,
    workdir: Path,
    moments: list[Moment],
    deaths: list[float],
) -> bool:
    """Starts a verb and kills processes of it at a random moment.

    Appends the moment, and the seconds after which processes that were not killed
    ended.

    Returns:
        Whether the verb had ended before.
    """
    _, whole_s = campaign.undisturbed(verb, processes)
    draw = campaign.random
    victims = draw.choice([[0], [1], [0, 1]]) if processes == 2 else [0]
    at_s = draw.uniform(0, whole_s)
    fault = f"kill {victims} at {at_s:.1f} of {whole_s:.1f} s"
    with campaign.case(f"{verb}, {processes} process(es), {fault}") as case:
        started = Started(verb, workdir, processes)
        codes = started.end(at_s)
        if None not in codes:
            must(not any(codes), f"exit codes {codes}: {started.said(0)}")
            case.outcome = "had ended"
            return True
        started.kill(victims)
        began = time.monotonic()
        codes = started.finished()
        for other in set(range(processes)) - set(victims):
            deaths.append(round(time.monotonic() - began, 1))
            if codes[other]:
                line = failure(started, other, codes[other])
                case.outcome = (
                    f"the other ended after {deaths[-1]} s: {line}; "
                )
        moments.append(Moment(workdir))
        case.outcome += f"there: {moments[-1]}"
    return False
