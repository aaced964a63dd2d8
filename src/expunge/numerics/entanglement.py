"""How far apart two sets of activations are: pure statistics of two (n, D) samples."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.distance import cdist
from scipy.special import logsumexp
from scipy.stats import gaussian_kde
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

Sample = NDArray[np.float64]
_FLAT = 1e-10
"""A direction whose spread is below this share of the largest one holds rounding errors only."""
_UNREDUCED = 10
"""The published code leaves activations of at most this width as they are."""


def jensen_shannon(forget: Sample, retain: Sample, components: int) -> float:
    """Information in nats that an activation carries about which set it is from: (n, D), (n, D) -> scalar.

    It is 0 where the sets cannot be told apart (a little below, by the noise of the estimate) and at most ln 2 where
    they are disjoint. Both densities are Gaussian kernel estimates with Scott's bandwidth over shared principal
    components in units of their pooled deviation; a point leaves itself out of the density of its own set. Neither
    scale nor rotation of the activations matters, nor which set is called which.

    Raises:
        ValueError: the activations span fewer directions than `components`.
    """
    pooled = np.concatenate([forget, retain])
    axes, spread, _ = np.linalg.svd(pooled - pooled.mean(0), full_matrices=False)
    if len(spread) < components or not spread[components - 1] > _FLAT * spread[0]:
        raise ValueError(f"the activations span fewer than {components} directions")
    scores = axes[:, :components] * np.sqrt(len(pooled))
    first, second = scores[: len(forget)], scores[len(forget) :]
    return 0.5 * (_told_apart(first, second) + _told_apart(second, first))


def _told_apart(own: Sample, other: Sample) -> float:
    """Mean over own points of ln(p / (p/2 + q/2)), p the density of their set without them and q that of the other."""
    log_own, log_other = _log_density(own, own, leave_out=True), _log_density(own, other, leave_out=False)
    return float(np.mean(np.log(2) + log_own - np.logaddexp(log_own, log_other)))


def _log_density(points: Sample, centres: Sample, *, leave_out: bool) -> Sample:
    """Kernel log-density at (m, k) points of (n, k) centres, less a constant; with `leave_out` a point is no centre."""
    count, width = centres.shape
    bandwidth = count ** (-1 / (width + 4))
    exponents = -cdist(points, centres, "sqeuclidean") / (2 * bandwidth**2)
    if leave_out:
        np.fill_diagonal(exponents, -np.inf)
    density: Sample = logsumexp(exponents, axis=1) - np.log(count - leave_out)
    return density


def paper_information(forget: Sample, retain: Sample) -> float:
    """H(F) + H(R) - H(F, R) in nats as the published code computes it (arXiv:2502.01472 eq. 2-7): a heuristic.

    It is no mutual information: row i of one set is glued to row i of the other although nothing pairs them, and
    scaling all activations by s adds (d_F + d_R - d_J) ln s, d the dimensions that the three reductions keep.
    """
    joint = np.concatenate([forget, retain], axis=1)
    return _entropy(reduced(forget)) + _entropy(reduced(retain)) - _entropy(reduced(joint))


def reduced(sample: Sample) -> Sample:
    """Principal components that keep 95% of the variance: (n, D) -> (n, d); a sample of at most 10 columns as it is."""
    if sample.shape[1] <= _UNREDUCED:
        return sample
    components: Sample = PCA(n_components=0.95, svd_solver="full").fit_transform(sample)
    return components


def _entropy(sample: Sample) -> float:
    """Resubstitution estimate in nats from a kernel density with Scott's factor and the full covariance."""
    return -float(np.mean(gaussian_kde(sample.T).logpdf(sample.T)))


def probe_auc(forget: Sample, retain: Sample, seed: int) -> float:
    """Area under the ROC curve of a logistic regression between the sets, mean over five held-out folds.

    Both sets need at least five rows; 0.5 is chance.
    """
    probe = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
    labels = np.repeat([1, 0], [len(forget), len(retain)])
    folds = StratifiedKFold(5, shuffle=True, random_state=seed)
    scores: Any = cross_val_score(probe, np.concatenate([forget, retain]), labels, cv=folds, scoring="roc_auc")
    return float(scores.mean())


def subspace_cosines(forget: Sample, retain: Sample, components: int) -> Sample:
    """Cosines of the principal angles between the sets' own top components, largest first: (k,) in [0, 1]."""
    first, second = _top_axes(forget, components), _top_axes(retain, components)
    return np.clip(np.linalg.svd(first @ second.T, compute_uv=False), 0.0, 1.0).astype(np.float64)


def _top_axes(sample: Sample, components: int) -> Sample:
    """Orthonormal directions of largest variance: (n, D) -> (k, D)."""
    axes: Sample = np.linalg.svd(sample - sample.mean(0), full_matrices=False)[2]
    return axes[:components]
