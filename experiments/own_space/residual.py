"""A search space of your own in one file: chains of three ops, every one of which may look back.

Command: python experiments/own_space/residual.py --workdir runs/own. A minute or two on two cores, digits.
A space of cells is a `DagConfig`: the ops, what each node may read, what makes the output. Registered by name it trains
and scores with every generator and is searched by every strategy; `conformance.check` tests it, here and in your tests.
For networks that aren't cells, write a `Space` and a `Target` (types.py); memory_bank is such a one.
"""

from dataclasses import dataclass
from pathlib import Path

import tyro

from jaxhypernas.cli.main import set_up
from jaxhypernas.config.config import Config
from jaxhypernas.data.dataset import DataConfig
from jaxhypernas.programs.training import TrainConfig
from jaxhypernas.run import Run
from jaxhypernas.search import SearchConfig
from jaxhypernas.spaces import (
    SPACES,
    CellConfig,
    CellStructure,
    DagConfig,
    conformance,
    dag_space,
)
from jaxhypernas.targets import TARGETS, cell_network

OPS = (
    "skip_connect",
    "nor_conv_1x1",
    "nor_conv_3x3",
    "max_pool_3x3",
)  # names in targets.OPS, where you can add more
STRUCTURE = CellStructure(
    OPS, inputs=1, write_N=(1, 2, 3), reads=2, ops_at_once=1, stack="residual"
)
CHAIN = DagConfig("residual", STRUCTURE, block=1, loose=True)

SPACES["residual"] = lambda config, image, classes: dag_space(
    CHAIN, config.cells, image, classes
)
TARGETS["residual"] = lambda config, image, classes: cell_network(
    STRUCTURE, config.cells, image, classes
)


@dataclass(frozen=True)
class Args:
    workdir: Path = Path("runs/own")


def main(args: Args) -> None:
    run = Run(
        args.workdir,
        Config(
            space="residual",
            generator="ghn",
            strategy="random",
            data=DataConfig(pad=1),
            cells=CellConfig(channels=4, cells=1),
            train=TrainConfig(steps=200, learning_rate=1e-2),
            search=SearchConfig(number=100),
        ),
    )
    conformance.check(run.space, run.target, run.dataset.image)
    run.train()
    for row in run.search().best(5).to_pylist():
        print(
            f"loss {row['loss']:.3f}  accuracy {row['accuracy']:.3f}  {row['params']:6d} parameters  {row['arch']}"
        )


if __name__ == "__main__":
    set_up()
    main(tyro.cli(Args))
