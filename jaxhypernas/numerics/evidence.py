"""Evidence on how good an architecture is, and the score that combines it.

Capacity counts the architecture, separability looks at its network before training, the
loss at its network under generated weights. Each is of one candidate alone.

The formula was chosen on tables of accuracies (experiments/LOG.md). `separability` is
NASWOT's score of the last layer (Mellor et al. 2021, section 3). Deviations:

1. Only the last rectified layer counts, not all of them.
2. The share of units that agree takes the place of their number, and `RIDGE` is added
   to the diagonal: the determinant of images that no unit tells apart is finite.
"""

from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np

from jaxhypernas.numerics.stats import ranks
from jaxhypernas.types import Cost

RIDGE = 1e-4
"""Added to the diagonal of the matrix of agreement."""

WORST = -1e9
"""A value that is not finite lies so many spreads from the centre."""


class Evidence(NamedTuple):
    """Evidence on candidates, float64 [A]."""

    capacity: np.ndarray
    """Multiply-adds on a path for each op that an image must pass; higher is better."""

    separability: np.ndarray
    """How well networks with random weights tell images apart; higher is better. NaN
    for networks without `Target.features`."""

    loss: np.ndarray
    """Validation loss; lower is better."""


class Reference(NamedTuple):
    """Where the evidence of a random sample lies."""

    centre: Evidence
    """The medians."""

    spread: Evidence
    """Half the interquartile ranges."""


def capacity(cost: Cost, depth_A: np.ndarray) -> np.ndarray:
    """Returns multiply-adds of cells over 1 + the ops of the shortest path.

    What lies outside of the cells does not count: small networks have few cells, and
    those that are wanted in the end have many.

    Args:
        cost: The counts of A candidates.
        depth_A: Their `Space.depth`.

    Returns:
        float64 [A]; 0 where no path leads to the output.
    """
    return cost.live_cell_flops / (1 + depth_A)


def separability(x_BxHxWxC: jax.Array) -> jax.Array:
    """Returns how differently the units of a rectified layer see the images of a batch.

    Args:
        x_BxHxWxC: The activations of B images.

    Returns:
        float32, shape (): the log-determinant of the B x B matrix of the shares of
        units that are both on or both off.
    """
    chex.assert_rank(x_BxHxWxC, 4)
    B = x_BxHxWxC.shape[0]
    on_BxU = (x_BxHxWxC > 0).reshape(B, -1).astype(jnp.float32)
    # 1 or -1: a product is the units that agree less those that do not.
    sign_BxU = 2 * on_BxU - 1
    product_BxB = jnp.matmul(sign_BxU, sign_BxU.T, precision="highest")
    share_BxB = (1 + product_BxB / sign_BxU.shape[1]) / 2
    return jnp.linalg.slogdet(share_BxB + RIDGE * jnp.eye(B))[1]


def terms(evidence: Evidence) -> Evidence:
    """Returns the terms of the score of each candidate of a population.

    Args:
        evidence: The evidence on A candidates.

    Returns:
        float64 [A], higher is better: log(1 + capacity), and for separability and loss
        the logs of their ranks over A, where the best has rank A; ties share the mean
        of their ranks. What is not finite counts as worst.
    """
    return Evidence(
        _log_capacity(evidence.capacity),
        _log_rank(evidence.separability),
        _log_rank(-evidence.loss),
    )


def score(evidence: Evidence) -> np.ndarray:
    """Returns the score of each candidate of a population: the sum of its `terms`.

    Args:
        evidence: The evidence on A candidates.

    Returns:
        float64 [A], higher is better; -inf where the loss is not finite.
    """
    return _sum(terms(evidence), evidence.loss)


def refer(sample: Evidence) -> Reference:
    """Returns where the evidence of a random sample lies.

    Args:
        sample: The evidence on a sample; what is not finite is left out.
    """
    quartiles = [_quartiles(column_A) for column_A in sample]
    centre = Evidence(*(np.array(middle) for _, middle, _ in quartiles))
    spread = Evidence(
        *(np.array((high - low) / 2) for low, _, high in quartiles)
    )
    return Reference(centre, spread)


def score_beside(evidence: Evidence, reference: Reference) -> np.ndarray:
    """Returns the score of each candidate alone, for a search that sees a few at once.

    Logs of ranks become what they are in a Cauchy distribution with the quartiles of
    the reference. Its tails are heavy, so that a candidate far from the sample, on
    either side, is neither all that counts nor equal to others there.

    Args:
        evidence: The evidence on A candidates.
        reference: Where the evidence of a random sample lies.

    Returns:
        float64 [A], higher is better; -inf where the loss is not finite.
    """
    centre, spread = reference
    above_A = evidence.separability - centre.separability
    below_A = centre.loss - evidence.loss
    parts = Evidence(
        _log_capacity(evidence.capacity),
        _log_share(above_A, spread.separability),
        _log_share(below_A, spread.loss),
    )
    return _sum(parts, evidence.loss)


def _log_capacity(capacity_A: np.ndarray) -> np.ndarray:
    return np.log1p(np.where(np.isfinite(capacity_A), capacity_A, 0))


def _log_rank(value_A: np.ndarray) -> np.ndarray:
    value_A = np.where(np.isfinite(value_A), value_A, -np.inf)
    return np.log(ranks(value_A) / len(value_A))


def _log_share(value_A: np.ndarray, spread: np.ndarray) -> np.ndarray:
    """The log of the share of a Cauchy distribution that lies below."""
    scaled_A = value_A / (spread if spread > 0 else 1.0)
    scaled_A = np.where(np.isfinite(scaled_A), scaled_A, WORST)
    return np.log(np.arctan2(1, -scaled_A) / np.pi)


def _sum(parts: Evidence, loss_A: np.ndarray) -> np.ndarray:
    return np.where(np.isfinite(loss_A), sum(parts), -np.inf)


def _quartiles(column_A: np.ndarray) -> np.ndarray:
    """The quartiles of what is finite; NaN if nothing is."""
    finite_A = column_A[np.isfinite(column_A)]
    if not len(finite_A):
        return np.full(3, np.nan)
    return np.quantile(finite_A, [0.25, 0.5, 0.75])
