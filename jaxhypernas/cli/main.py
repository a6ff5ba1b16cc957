"""The command line: ``jaxhypernas VERB --workdir W``. Every verb resumes, and ends by naming what it wrote."""

import contextlib
import csv
import errno
import importlib.util
import io
import json
import logging
import os
import re
import sys
import tempfile
import traceback
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Literal

import jax
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import tyro
from etils.epath import Path

from jaxhypernas.config import config as configs
from jaxhypernas.config.config import PRESETS, Config
from jaxhypernas.hosts import interrupt, processes, rollcall
from jaxhypernas.numerics.stats import format_report
from jaxhypernas.programs.ahead import preflight
from jaxhypernas.report.report import plain
from jaxhypernas.run import Run
from jaxhypernas.store.score_table import COLUMNS, COUNTS, Scored
from jaxhypernas.store.tables import write_parts
from jaxhypernas.types import Arch, UserError

WORKDIR = "runs/search"  # of search and train, if none is named
SHORT = {
    "--dataset": "--data.dataset",
    "--data-dir": "--data.data-dir",
    "--max-params": "--search.max-params",
    "--max-flops": "--search.max-flops",
}
UNWRITABLE = {
    errno.ENOSPC,
    errno.EDQUOT,
    errno.EFBIG,
    errno.EROFS,
    errno.EACCES,
    errno.EPERM,
    errno.EIO,
}


@dataclass(frozen=True)
class Workdir:
    """Where a run lives."""

    workdir: Path  # holds everything of the run; the same directory resumes


@dataclass(frozen=True)
class Score(Workdir):
    """Score architectures under the trained generator's weights, any number: they come and go in pieces."""

    archs: Path | None = (
        None  # a text file, an architecture per line, or a CSV or Parquet with a column arch
    )
    random: int = 0  # or so many random architectures
    all: bool = False  # or all architectures of the space
    seed: int = 0  # of the random architectures
    out: Path | None = (
        None  # Parquet: a row for each of these, in order; scores/ has each distinct one in any case
    )


@dataclass(frozen=True)
class Top(Workdir):
    """The candidates scored of lowest loss, or those that no other beats in both loss and a count."""

    number: int = 20  # how many
    max_params: int = (
        0  # only candidates with at most so many parameters; 0: no limit
    )
    max_flops: int = 0  # ... and FLOPs
    pareto: Literal["params", "flops", "live_params", "live_flops"] | None = (
        None  # the count: all that are not beaten
    )
    out: Path | None = None  # Parquet


@dataclass(frozen=True)
class Rank(Workdir):
    """Compare scores with the truth."""

    truth: Path  # CSV or Parquet with columns arch and an accuracy
    column: str = "accuracy"  # the truth's name: higher is better
    json: bool = False  # print one JSON object


def _search(run: Run) -> list[Path]:
    if run.config.generator != "standalone":
        run.train()
    run.search()
    run.retrain()
    if not processes.first():
        return []
    figures = run.report()
    print(
        f"winner: test accuracy {figures['winner_test_accuracy']:.4f} trained from scratch, "
        f"random sample's mean {figures['sample_test_accuracy']:.4f}"
    )
    tau = figures["rank"]["generated weights"]["tau"]
    print(
        f"scores against test loss: Kendall tau {tau['value']:.3f} [{tau['low']:.3f}, {tau['high']:.3f}]"
    )
    return [
        run.workdir / name
        for name in (
            "report.md",
            "report.json",
            "scores",
            "retrain",
            "checkpoints",
        )
    ]


def _train(run: Run) -> list[Path]:
    run.train()
    return [run.workdir / "checkpoints", run.workdir / "metrics.jsonl"]


def _score(args: Score) -> list[Path]:
    if (args.archs is not None) + (args.random > 0) + args.all != 1:
        raise UserError(
            "score: give one of --archs FILE, --random N with N of at least 1, and --all"
        )
    if not 0 <= args.seed < 2**32:
        raise UserError(f"seed: {args.seed} must be at least 0 and below 2^32")
    if args.out is not None:
        _check_out(args.out)
    run = Run(args.workdir)
    pieces, number = _candidates(run, args)
    with run.score_bar(number) as bar:
        ids = (run.add(piece, bar) for piece in pieces)
        if args.out is not None and processes.first():
            write_parts(
                args.out,
                (run.scores.rows(id_A).select(COLUMNS[1:]) for id_A in ids),
            )
        else:
            deque(ids, maxlen=0)
    return [args.out or run.workdir / "scores"]


def _candidates(run: Run, args: Score) -> tuple[Iterator[Arch], int]:
    """Populations to score, and how many candidates are in them."""
    if args.all:
        return run.everything()
    if args.archs is None:
        return run.samples(args.random, jax.random.key(args.seed)), args.random
    number = 0
    for row in _read(args.archs, "archs", ("arch",)):
        run.space.from_string(
            row["arch"]
        )  # all of them, before the first is scored
        number += 1
    return run.parsed(
        row["arch"] for row in _read(args.archs, "archs", ("arch",))
    ), number


def _check_out(path: Path) -> None:
    try:
        if path.is_dir():
            raise UserError(f"out: {path} is a directory: give a file")
        if "://" not in str(path):  # object stores have no directories
            with tempfile.NamedTemporaryFile(dir=path.parent, prefix=path.name):
                pass
    except OSError as error:
        raise UserError(
            f"out: {path} cannot be written ({error.strerror})"
        ) from None


def _top(args: Top) -> list[Path]:
    if args.number < 1:
        raise UserError(f"number: {args.number} must be at least 1")
    if args.out is not None:
        _check_out(args.out)
    directory, limits = (
        args.workdir / "scores",
        (args.max_params, args.max_flops),
    )
    if not directory.is_dir() or not len(scores := Scored(directory)):
        raise UserError(
            f"workdir: {args.workdir} has no scores: run jaxhypernas score --workdir {args.workdir} first"
        )
    found = (
        scores.pareto(args.pareto, *limits)
        if args.pareto
        else scores.best(args.number, *limits)
    )
    if not len(found):
        raise UserError(
            f"top: none of {len(scores)} candidates is within --max-params and --max-flops"
        )
    print(
        "    loss  accuracy"
        + "".join(f"{name:>13}" for name in COUNTS)
        + "  arch"
    )
    for row in found.to_pylist():
        counts = "".join(f"{row[name]:13,}" for name in COUNTS)
        print(
            f"{row['loss']:8.4f}  {row['accuracy']:8.4f}{counts}  {row['arch']}"
        )
    if args.out is None:
        return []
    write_parts(args.out, [found])
    return [args.out]


def _retrain(args: Workdir) -> list[Path]:
    run = Run(args.workdir)
    run.retrain()
    return [run.workdir / "retrain"]


def _report(args: Workdir) -> list[Path]:
    run = Run(args.workdir)
    if processes.first():
        run.report()
    return [run.workdir / "report.md", run.workdir / "report.json"]


def _rank(args: Rank) -> list[Path]:
    rows = list(_read(args.truth, "truth", ("arch", args.column)))
    try:
        truth = np.array([float(row[args.column]) for row in rows])
    except (TypeError, ValueError) as error:
        raise UserError(
            f"column: {args.column} of {args.truth} is not a number everywhere ({error})"
        ) from None
    ranking = Run(args.workdir).rank([row["arch"] for row in rows], truth)
    if not processes.first():
        return []
    if args.json:
        print(json.dumps(plain(ranking)))
    else:
        print(
            f"{len(rows)} architectures, truth {args.column}, 95 % bootstrap intervals"
        )
        print(format_report(ranking))
    return []


def _read(path: Path, field: str, columns: tuple[str, ...]) -> Iterator[dict]:
    """Rows of a CSV or Parquet, or of a text file with one architecture per line, as they are needed."""
    row = None
    try:
        for row in _lines(path):
            for column in columns:
                if column not in row:
                    raise UserError(
                        f"{field}: {path} has no column {column}: it has {', '.join(map(str, row))}"
                    )
                if row[column] is None or (
                    column == "arch" and not isinstance(row[column], str)
                ):
                    raise UserError(
                        f"{field}: {path} has a row whose {column} is {row[column]!r:.40}"
                    )
            yield row
    except (OSError, pa.ArrowException, UnicodeDecodeError, csv.Error) as error:
        raise UserError(
            f"{field}: cannot read {path} ({' '.join(str(error).split())[:120]})"
        ) from None
    if row is None:
        raise UserError(f"{field}: {path} is empty")


def _lines(path: Path) -> Iterator[dict]:
    if path.suffix == ".parquet":
        with path.open("rb") as file:
            for batch in pq.ParquetFile(file).iter_batches(batch_size=4096):
                yield from batch.to_pylist()
        return
    with io.TextIOWrapper(
        path.open("rb"), encoding="utf-8", newline=""
    ) as lines:
        if path.suffix == ".csv":
            yield from csv.DictReader(lines)
        else:
            yield from (
                {"arch": line.strip()} for line in lines if line.strip()
            )


def _parse(kind, verb: str, argv: list[str], default=None, more: str = ""):
    """tyro's parser, its complaints folded into one line; ``more`` are options taken before it."""
    shown = io.StringIO()
    try:
        with contextlib.redirect_stderr(shown):
            extra = {} if default is None else {"default": default}
            description = (
                f"Options: {more} and the configuration's fields:"
                if more
                else kind.__doc__
            )
            return tyro.cli(
                kind,
                prog=f"jaxhypernas {verb}",
                description=description,
                args=argv,
                **extra,
            )
    except SystemExit as stop:
        if not stop.code:
            raise
        text = " ".join(
            "".join(
                c if c.isprintable() and c not in "╭╮╰╯│─" else " "
                for c in shown.getvalue()
            ).split()
        )
        text = re.sub(
            "-{3,} ?",
            "",
            text.split(" For full helptext")[0].split(" Argument helptext")[0],
        )[:400]
        if found := re.search(r"Error parsing (--)?([\w.-]+): (.*)", text):
            flag, name, said = found.groups()
            raise UserError(
                f"{name}: {said}" if flag else configs.full_name(name, said)
            ) from None
        raise UserError(f"{verb}: {text}") from None


def _begin(verb: str, argv: list[str]) -> Run:
    """The run of search and train: a preset, or the work directory's own config, with overrides."""
    workdir, argv = _take(argv, "--workdir")
    if workdir == "":
        raise UserError(
            f"workdir: it is empty: give a directory, or leave it out for {WORKDIR}"
        )
    workdir = Path(workdir or WORKDIR)
    begun = (
        configs.load(workdir / "config.json")
        if (workdir / "config.json").exists()
        else None
    )
    config = _config(verb, argv, f"--workdir W ({WORKDIR})", begun)
    if verb == "search" and config.data.stream:
        raise UserError(
            "data.stream: search retrains the best, with all images on a device: use train, score and top"
        )
    return Run(workdir, config)


def _config(
    verb: str, argv: list[str], more: str, begun: Config | None = None
) -> Config:
    """A preset, or what was begun, with overrides; ``more`` are options taken before it."""
    argv = [
        SHORT.get(a.split("=")[0], a.split("=")[0]) + a[len(a.split("=")[0]) :]
        for a in argv
    ]
    preset, argv = _take(argv, "--preset")
    if preset is not None and preset not in PRESETS:
        raise UserError(
            f"preset: {preset!r} is not one of {', '.join(PRESETS)}"
        )
    default = (
        begun
        if begun is not None and preset is None
        else PRESETS[preset or "small"]
    )
    return _parse(
        Config, verb, argv, default, f"{more}, --preset {'|'.join(PRESETS)},"
    )


def _compile(argv: list[str]) -> list[Path]:
    """Compile a run's programs for a TPU slice; what doesn't fit is the error."""
    topology, argv = _take(argv, "--topology")
    words = [a for a in argv if a != "--json"]
    config = _config(
        "compile", words, "--topology CHIP:SHAPE (as v5e:16x16), --json"
    )
    if topology is None:
        raise UserError("topology: name the slice, as in --topology v5e:16x16")
    jax.config.update("jax_platforms", "cpu")
    _, devices = preflight.slice_devices(topology)
    config, told = preflight.fitting(config, len(devices))
    show = (
        (lambda line: None)
        if len(words) < len(argv)
        else partial(print, flush=True)
    )
    show(
        f"{topology}: {len(devices)} devices; loops count as often as they run, conditionals as the mean of their"
    )
    show(
        "branches; rates are estimates, at the chip's published peaks and by the compiler's cycles: nothing was run"
    )
    if told:
        show(told)
    found: list[preflight.Figures | UserError] = []
    for figures in preflight.compiled(config, topology):
        found.append(figures)
        if isinstance(figures, preflight.Figures):
            show(preflight.lines(figures))
    misfits = [str(f) for f in found if isinstance(f, UserError)]
    if len(words) < len(argv):
        programs = [
            f._asdict() for f in found if isinstance(f, preflight.Figures)
        ]
        result = {
            "topology": topology,
            "devices": len(devices),
            "changed": told,
            "programs": programs,
        }
        print(json.dumps({**result, "misfits": misfits}))
    if misfits:
        raise UserError("; ".join(misfits))
    return []


def _take(argv: list[str], flag: str) -> tuple[str | None, list[str]]:
    """A flag's value and the other arguments."""
    for i, word in enumerate(argv):
        if word.startswith(f"{flag}="):
            return word[len(flag) + 1 :], argv[:i] + argv[i + 1 :]
        if word == flag:
            if i + 1 == len(argv):
                raise UserError(f"{flag[2:]}: a value must follow {flag}")
            return argv[i + 1], argv[:i] + argv[i + 2 :]
    return None, argv


VERBS = {
    "search": (
        "train, search, retrain the best, report",
        lambda argv: _search(_begin("search", argv)),
    ),
    "train": (
        "train the generator",
        lambda argv: _train(_begin("train", argv)),
    ),
    "score": (
        "score architectures",
        lambda argv: _score(_parse(Score, "score", argv)),
    ),
    "top": (
        "the best scored, or a Pareto front",
        lambda argv: _top(_parse(Top, "top", argv)),
    ),
    "retrain": (
        "train the best and a random sample from scratch",
        lambda a: _retrain(_parse(Workdir, "retrain", a)),
    ),
    "rank": (
        "compare scores with a truth",
        lambda argv: _rank(_parse(Rank, "rank", argv)),
    ),
    "report": (
        "write the report",
        lambda argv: _report(_parse(Workdir, "report", argv)),
    ),
    "compile": (
        "whether a run fits a TPU slice, and how fast it may be: no data or devices needed",
        _compile,
    ),
}
USAGE = "usage: jaxhypernas VERB [--help]\n" + "".join(
    f"  {name:8} {text}\n" for name, (text, _) in VERBS.items()
)
USAGE += (
    "with --distributed, of several processes: each runs the same command\n"
)


def set_up() -> None:
    """All CPU cores as devices, a compilation cache that persists. Call it before any other use of JAX."""
    if jax.config.values["jax_num_cpu_devices"] < 1:
        jax.config.update("jax_num_cpu_devices", os.cpu_count() or 1)
    if jax.config.values["jax_compilation_cache_dir"] is None:
        cache = (
            Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser()
            / "jaxhypernas"
            / "xla"
        )
        jax.config.update("jax_compilation_cache_dir", str(cache))
    logging.getLogger("absl").setLevel(
        logging.CRITICAL
    )  # orbax logs the traceback of each error that it raises too
    sys.unraisablehook = _unraisable
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)


def _unraisable(told) -> None:
    """Tensorstore's threads complain of what is still under way when orbax gives up: no news."""
    if str(told.exc_value) != "Event loop is closed":
        sys.__unraisablehook__(told)


def _join(argv: list[str]) -> None:
    """Be one of the processes of a run."""
    workdir, _ = _take(argv, "--workdir")
    config = Path(workdir or WORKDIR) / "config.json"
    rollcall.join(argv, config.read_bytes() if config.is_file() else b"")


def main(argv: list[str] | None = None) -> None:
    """Run a verb. What the user got wrong is one line on stderr and exit code 2."""
    argv = sys.argv[1:] if argv is None else argv
    if not argv or argv[0] in ("-h", "--help"):
        print(USAGE, end="")
        return
    code, distributed = 0, "--distributed" in argv
    try:
        if argv[0] not in VERBS:
            raise UserError(
                f"verb: {argv[0]!r} is not one of {', '.join(VERBS)}"
            )
        if any("gs://" in word for word in argv) and not any(
            map(importlib.util.find_spec, ("gcsfs", "tensorflow"))
        ):
            raise UserError(
                "gs://: Google Cloud Storage needs gcsfs: pip install 'jaxhypernas[gcs]'"
            )
        set_up()
        if distributed:
            argv = [word for word in argv if word != "--distributed"]
            _join(argv)
        interrupt.install()  # after JAX, which has a handler of its own
        written = VERBS[argv[0]][1](argv[1:])
        for path in written if processes.first() else ():
            print(f"wrote {path}")
    except UserError as error:
        print(f"jaxhypernas: {' '.join(str(error).split())}", file=sys.stderr)
        code = 2
    except interrupt.StoppedError as stop:
        print(f"jaxhypernas: {stop}", file=sys.stderr)
        code = stop.code
    except Exception as error:
        if isinstance(error, OSError) and error.errno in UNWRITABLE:
            place = (
                error.filename
                or f"workdir: {_take(argv, '--workdir')[0] or WORKDIR}"
            )
            told = f"cannot be written ({error.strerror}): make room or allow it, and give the same command"
            print(f"jaxhypernas: {place} {told}", file=sys.stderr)
            code = 2
        elif not distributed:
            raise
        elif isinstance(error, jax.errors.JaxRuntimeError) or "Gloo" in str(
            error
        ):  # at times a ValueError
            rollcall.lost()
            code = rollcall.LOST_CODE
        else:
            traceback.print_exc()
            code = 1
    if (
        code and distributed
    ):  # no farewell to the others, which may be waiting for this process elsewhere
        sys.stdout.flush()
        os._exit(code)
    if code:
        sys.exit(code)
