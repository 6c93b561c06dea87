"""Scores of a classifier, numpy only."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

IntArray = npt.NDArray[np.integer[Any]]
RealArray = npt.NDArray[np.floating[Any]]


@dataclass(frozen=True)
class Scores:
    """How well logits predict labels.

    Attributes:
        accuracy: the part of the samples that is right, 0 to 1.
        majority_baseline: the accuracy of always answering these labels' most frequent class.
        auc: area under the ROC curve of the positive class; the mean over the classes, each
            against the rest, where there are more than two; None where a class has no sample.
        f1: of the positive class; the mean over the classes where there are more than two.
    """

    accuracy: float
    majority_baseline: float
    auc: float | None
    f1: float


def evaluate_logits(logits: RealArray, labels: IntArray) -> Scores:
    """Score logits (S, classes) against labels (S,); of two classes, class 1 is the positive."""
    predicted = logits.argmax(axis=1)
    classes = logits.shape[1]
    positives = [1] if classes == 2 else list(range(classes))
    # The logit less the largest other one; for two classes, their difference.
    areas = [
        area_under_curve(
            logits[:, k] - np.delete(logits, k, axis=1).max(axis=1), np.asarray(labels == k)
        )
        for k in positives
    ]
    known = [area for area in areas if area is not None]
    return Scores(
        accuracy=float((predicted == labels).mean()),
        majority_baseline=float(np.bincount(labels).max() / len(labels)),
        auc=float(np.mean(known)) if len(known) == len(areas) else None,
        f1=float(np.mean([_f1(predicted == k, np.asarray(labels == k)) for k in positives])),
    )


def area_under_curve(scores: RealArray, positive: npt.NDArray[np.bool_]) -> float | None:
    """Area under the ROC curve: the chance that a positive's score exceeds a negative's.

    Computed from rank sums, ties counting one half (Mann and Whitney 1947).

    Args:
        scores: higher means more likely positive, shape (S,).
        positive: which samples are positive, shape (S,).

    Returns:
        0 to 1, or None where there is no positive or no negative sample.
    """
    count = int(positive.sum())
    others = len(positive) - count
    if not count or not others:
        return None
    _, place, repeats = np.unique(scores, return_inverse=True, return_counts=True)
    last_rank = np.cumsum(repeats)
    ranks = (last_rank - (repeats - 1) / 2)[place.reshape(-1)]
    return float((ranks[positive].sum() - count * (count + 1) / 2) / (count * others))


def _f1(predicted: npt.NDArray[np.bool_], actual: npt.NDArray[np.bool_]) -> float:
    """Harmonic mean of precision and recall; 0 where nothing is predicted rightly."""
    both = int((predicted & actual).sum())
    return 2 * both / int(predicted.sum() + actual.sum()) if both else 0.0
