"""What a few known truths say of all candidates, beside what the score says.

A Gaussian process whose prior mean is the score: with few labels it orders as the score
does, with more it learns from the features where the score is wrong. Truths and scores
enter by their ranks, as quantiles of the normal distribution.
"""

import warnings
from typing import NamedTuple

import numpy as np
from scipy.special import ndtri

from jaxhypernas.numerics.stats import ranks

FEWEST = 6
"""Labels below which the score alone speaks."""

LARGEST = 4.0
"""Standard deviations from the mean that a feature has at most."""


class Prediction(NamedTuple):
    """The truths of candidates, as quantiles of the normal distribution; [A]."""

    mean_A: np.ndarray
    """The truth that is expected of each candidate; higher is better."""

    deviation_A: np.ndarray
    """Standard deviation of the truth."""


def predict(
    score_A: np.ndarray,
    features_AxF: np.ndarray,
    labelled_L: np.ndarray,
    truth_L: np.ndarray,
) -> Prediction:
    """Predicts the truths of all candidates from those of some.

    Args:
        score_A: Scores; higher is better.
        features_AxF: Finite features of each candidate, in any units.
        labelled_L: The places of L candidates whose truth is known.
        truth_L: Their truths; higher is better, and what is not finite is worst.

    Returns:
        The prediction for all candidates, the labelled ones included.
    """
    prior_A = _quantiles(score_A)
    if len(labelled_L) < FEWEST:
        return Prediction(prior_A, np.ones(len(score_A)))
    label_L = _quantiles(truth_L)
    prior_L = prior_A[labelled_L]
    # How far a step of the score is one of the truth; never against it.
    slope = max(0.0, float(prior_L @ label_L / (prior_L @ prior_L)))
    scaled_AxF = _scaled(features_AxF)
    process = _process(scaled_AxF.shape[1])
    with warnings.catch_warnings():
        # It warns of constants that end at their bounds; those are good fits here.
        warnings.simplefilter("ignore")
        process.fit(scaled_AxF[labelled_L], label_L - slope * prior_L)
    correction_A, deviation_A, *_ = process.predict(
        scaled_AxF, return_std=True
    )
    return Prediction(slope * prior_A + correction_A, deviation_A)


def _process(features: int):
    """A Gaussian process; its amplitude, length and noise are fitted."""
    # Slow to import.
    from sklearn.gaussian_process import GaussianProcessRegressor
    from sklearn.gaussian_process.kernels import (
        RBF,
        ConstantKernel,
        WhiteKernel,
    )

    length = np.sqrt(max(features, 1))
    kernel = ConstantKernel(0.1, (1e-3, 10)) * RBF(length, (0.5, 100))
    return GaussianProcessRegressor(kernel + WhiteKernel(0.1, (1e-3, 2)))


def _quantiles(value_A: np.ndarray) -> np.ndarray:
    """Normal quantiles of ranks; ties share one, what is not finite is worst."""
    value_A = np.where(np.isfinite(value_A), value_A, -np.inf)
    return ndtri((ranks(value_A) - 0.5) / len(value_A))


def _scaled(features_AxF: np.ndarray) -> np.ndarray:
    """Features of mean 0 and deviation 1; constant ones are left out."""
    deviation_F = features_AxF.std(0)
    varies_F = deviation_F > 0
    varying_AxF = features_AxF[:, varies_F]
    centred_AxF = varying_AxF - varying_AxF.mean(0)[None]
    return np.clip(centred_AxF / deviation_F[varies_F], -LARGEST, LARGEST)
