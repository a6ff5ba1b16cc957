"""Figures of a program as lines of text."""

from jaxhypernas.programs.ahead.figures import Figures

_MIB = 2**20


def lines(figures: Figures) -> str:
    """Writes the figures of a program as five lines.

    Args:
        figures: The figures.
    """
    f = figures
    total = f.arguments + f.outputs + f.temporaries
    moved = [
        f"{kind} x{count:g} ({size / _MIB:.2f} MiB)"
        for kind, (count, size) in sorted(f.collectives.items())
    ]
    text = (
        f"{f.program}: {f.candidates:g} candidate(s) per device, {f.images:,} images "
        f"each; compiled in {f.compile_s} s",
        f"  memory per device   {total / _MIB:,.0f} MiB of {f.memory / _MIB:,.0f}: "
        f"{f.arguments / _MIB:,.0f} arguments, {f.outputs / _MIB:,.0f} outputs, "
        f"{f.temporaries / _MIB:,.0f} temporaries",
        f"  per candidate       {f.flops / 1e9:,.2f} GFLOP, {f.bytes / 1e9:,.2f} GB",
        f"  collectives         {', '.join(moved) or 'none'}",
        f"  at most             {_rates(f)} by the compiler's cycles; bound by "
        f"{f.bound}",
    )
    return "\n".join(text)


def _rates(figures: Figures) -> str:
    """Both rates, in the unit that suits the program."""
    at_peak = figures.candidates_per_s
    by_cycles = figures.candidates_per_s_by_cycles
    if figures.program == "score":
        return f"{at_peak:,.0f} candidates/s, {by_cycles:,.0f}"
    if figures.program == "train":
        images = figures.images
        return (
            f"{at_peak * images:,.0f} images*candidates/s, "
            f"{by_cycles * images:,.0f}"
        )
    return f"{at_peak * 3600:,.1f} candidates/h, {by_cycles * 3600:,.1f}"
