"""The plan of a search, in lines."""

import resource
from collections.abc import Sequence

import jax

from jaxhypernas.programs.parts import Parts
from jaxhypernas.programs.plan import Phase
from jaxhypernas.programs.trial import COUNTED, sample
from jaxhypernas.report import duration


def lines(
    parts: Parts, phases: Sequence[Phase], compiling: float
) -> list[str]:
    """Returns what a search will do and how long it takes here.

    Args:
        parts: The parts of the search.
        phases: Its phases.
        compiling: Seconds that compilers took in the trial.
    """
    names = parts.config.names
    space, _, generator = parts.searched
    cost = space.cost(sample(parts))
    phi = jax.tree.leaves(jax.eval_shape(generator.init, parts.key))
    device = parts.mesh.devices.flat[0].device_kind
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    in_all = sum(phase.seconds for phase in phases)
    return [
        f"space {names['space']}: networks of {cost.params.min():,} to "
        f"{cost.params.max():,} parameters, {cost.flops.min():,} to "
        f"{cost.flops.max():,} multiply-adds ({COUNTED} random ones)",
        f"generator {names['generator']}: {sum(x.size for x in phi):,} parameters; "
        f"strategy {names['strategy']}; {parts.mesh.size} {device} device(s), "
        f"{parts.chunk} candidate(s) side by side on each, form {parts.form}",
        *(
            f"{phase.name:8} {phase.work:58} {duration.text(phase.seconds):>12}"
            for phase in phases
        ),
        f"{'in all':8} {'':58} {duration.text(in_all):>12}",
        f"compiling took {duration.text(compiling)} beside that: programs are in the "
        f"cache now; memory up to now {peak:.1f} GiB",
    ]
