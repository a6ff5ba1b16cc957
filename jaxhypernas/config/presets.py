"""Named configurations: small ones for two CPU cores, and the papers'."""

from dataclasses import replace

from jaxhypernas.archs.sizes import (
    GhnCellConfig,
    MemoryBankConfig,
    Nasbench201Config,
    OneShotConfig,
    PnasConfig,
)
from jaxhypernas.config.config import Config
from jaxhypernas.config.sections import RetrainConfig, ScoreConfig, TrainConfig
from jaxhypernas.data.config import DataConfig
from jaxhypernas.generators.configs import (
    GhnConfig,
    SharedConfig,
    SmashConfig,
    StandaloneConfig,
)
from jaxhypernas.search.configs import (
    ProgressiveConfig,
    RandomConfig,
    SmashSearchConfig,
)

_CIFAR = DataConfig("cifar10", valid=0.1, pad=4, flip=True)

# The papers order candidates by loss.
_PAPER_SCORE = ScoreConfig(order="loss", images=0)

# SMASHv1: 100 epochs of batch 50.
_SMASH_TRAIN = TrainConfig(
    steps=90_000,
    batch=50,
    architectures=1,
    learning_rate=1e-3,
    every=900,
)

_SMALL_CIFAR = Config(
    space=MemoryBankConfig(stem_stride=2),
    strategy=SmashSearchConfig(number=500),
    data=DataConfig("cifar10", valid=0.02, pad=4, flip=True),
    train=TrainConfig(steps=3000),
    score=ScoreConfig(images=0),
    retrain=RetrainConfig(
        sample=48,
        train=TrainConfig(steps=500, batch=64, architectures=1),
    ),
)

_NASBENCH201 = Config(
    space=Nasbench201Config(),
    generator=SharedConfig(),
    strategy=RandomConfig(),
    data=DataConfig("cifar10", valid=0.01, pad=4, flip=True),
    train=TrainConfig(
        steps=6000,
        batch=64,
        architectures=2,
        learning_rate=3e-3,
        every=200,
    ),
    score=ScoreConfig(batch=32),
    retrain=RetrainConfig(
        train=TrainConfig(steps=1000, batch=64, architectures=1)
    ),
)

_SMASH_PAPER = Config(
    space=MemoryBankConfig(
        unit=8,
        units=8,
        depth=12,
        widening=4,
        max_bottleneck=2,
        max_kernel=7,
        max_dilation=3,
        max_groups=8,
        stem_kernel=7,
        stem_stride=1,
        slots=48,
    ),
    generator=SmashConfig(stem=7, layers=(8, 10, 4), growth=10),
    strategy=SmashSearchConfig(number=500),
    data=_CIFAR,
    train=_SMASH_TRAIN,
    score=_PAPER_SCORE,
    retrain=RetrainConfig(
        top=1,
        sample=50,
        train=replace(
            _SMASH_TRAIN,
            steps=270_000,
            optimizer="sgd",
            learning_rate=0.1,
        ),
    ),
)

_GHN_PAPER = Config(
    space=GhnCellConfig(channels=32, cells=6, nodes=17, train_nodes=7),
    generator=GhnConfig(),
    strategy=RandomConfig(),
    data=_CIFAR,
    train=_SMASH_TRAIN,
    score=_PAPER_SCORE,
    retrain=RetrainConfig(
        top=10,
        sample=100,
        train=replace(
            _SMASH_TRAIN,
            steps=45_000,
            optimizer="sgd",
            learning_rate=0.1,
        ),
    ),
)

_ONE_SHOT_PAPER = Config(
    space=OneShotConfig(channels=32, cells=2),
    generator=SharedConfig(),
    strategy=RandomConfig(number=20_000),
    data=_CIFAR,
    train=TrainConfig(
        steps=10_000,
        batch=32,
        architectures=32,
        optimizer="sgd",
        learning_rate=0.1,
        path_dropout=0.05,
        ghosts=32,
    ),
    score=_PAPER_SCORE,
    retrain=RetrainConfig(
        top=10,
        sample=50,
        train=TrainConfig(
            steps=30_000,
            batch=64,
            architectures=1,
            optimizer="sgd",
            learning_rate=0.1,
        ),
    ),
)

_PNAS_PAPER = Config(
    space=PnasConfig(channels=24, cells=2),
    generator=StandaloneConfig(),
    strategy=ProgressiveConfig(surrogate="lstm"),
    data=_CIFAR,
    score=_PAPER_SCORE,
    retrain=RetrainConfig(
        top=1,
        train=TrainConfig(
            steps=7_000,
            batch=128,
            architectures=1,
            optimizer="sgd",
            learning_rate=0.01,
        ),
    ),
)

PRESETS: dict[str, Config] = {
    "small": Config(),
    "small-cifar": _SMALL_CIFAR,
    "nasbench201": _NASBENCH201,
    "smash-paper": _SMASH_PAPER,
    "ghn-paper": _GHN_PAPER,
    "one_shot-paper": _ONE_SHOT_PAPER,
    "pnas-paper": _PNAS_PAPER,
}
"""
small
    Minutes on two CPU cores, on scikit-learn's digits.
small-cifar
    The same networks on CIFAR-10, at half its resolution after the stem: about an hour
    on two CPU cores.
nasbench201
    NAS-Bench-201 at C=8, N=1 on CIFAR-10: minutes of training on two CPU cores.
smash-paper
    SMASHv1 (Brock et al. 2018, section 4.1). Published error of the retrained winner:
    5.53 %.
ghn-paper
    Graph HyperNetworks (Zhang et al. 2019): trained on cells of 7 nodes; 18 cells of 17
    nodes are searched and the top 10 trained. Published error: 2.84 %. The paper's
    training settings were not found; these are SMASH's.
one_shot-paper
    One-Shot (Bender et al. 2018): 10,000 steps, ghost batches of 32, path dropout.
    Published accuracy of the top 10: 95.9 %.
pnas-paper
    PNAS (Liu et al. 2018): every candidate is trained for 20 epochs. Published error of
    the retrained winner: 3.41 %.
"""
