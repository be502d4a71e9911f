"""The diversity term: fakes should differ in how the teacher relates them to the prompts."""

from __future__ import annotations

from torch import Tensor, nn

from kd_plugin.terms.base import correlations

__all__ = ["Diversity"]


class Diversity(nn.Module):
    """The mean of cos(C_T[i], C_T[j]) over the N (N - 1) ordered pairs i != j of fakes; 0 for a single image.

    It depends on the generator and the frozen teacher alone, so it belongs into the *generator's* loss, with the
    gradient taken through the teacher. In the discriminator's loss it does nothing.

    Source: KD-DLGAN (arXiv 2303.17158), L_pd of L_CGKD. Differs from the paper in: the paper writes the sum over the
    pairs; the mean keeps the weight's meaning when the batch grows.
    """

    def forward(self, embeddings: Tensor, texts: Tensor) -> Tensor:
        """
        Args:
            embeddings: [N, E], the teacher's of the fakes, with gradient.
            texts: [P, E], without.
        """
        rows = correlations(embeddings, texts)  # of unit length: their cosine is the inner product
        # Over all pairs the inner products add up to |sum of rows|^2; those of a row with itself come off.
        pairs = max(len(rows) * (len(rows) - 1), 1)
        return (rows.sum(dim=0).square().sum() - rows.square().sum()) / pairs
