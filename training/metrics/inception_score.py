"""The Inception Score: clear classes, and many of them."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["inception_score"]


def inception_score(probabilities: Tensor, num_splits: int = 10) -> tuple[float, float]:
    """Mean and standard deviation, over consecutive splits, of exp(E[KL(p(y|x) || p(y))]).

    Args:
        probabilities: [N, classes], rows sum to 1; N at least `num_splits`.

    Source: Salimans et al. 2016 (arXiv 1606.03498), section 4.
    """
    count = len(probabilities)
    scores = []
    for split in range(num_splits):
        part = probabilities[split * count // num_splits : (split + 1) * count // num_splits].double()
        divergence = (part.xlogy(part) - part.xlogy(part.mean(0))).sum(1)
        scores.append(divergence.mean().exp())
    values = torch.stack(scores)
    return float(values.mean()), float(values.std(correction=0))
