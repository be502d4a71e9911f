"""The terms of G: from generated and real images, through the frozen teacher, to their losses."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from kd_plugin.balance import weighted
from kd_plugin.config.kd import KDConfig
from kd_plugin.diffaugment import NONE, DiffAugment
from kd_plugin.distributed import gathered, rank
from kd_plugin.errors import KDError, arg
from kd_plugin.seeding import draws_of
from kd_plugin.sides.discriminator import Borrowed
from kd_plugin.terms import GeneratorStep, Needs, Term
from kd_plugin.terms.training import train_term
from kd_plugin.types import Distilled, StageView

__all__ = ["GeneratorSide"]

Augmentation = Callable[[Tensor], Tensor]


class GeneratorSide:
    """Shows G's images to the teacher, once for each augmentation that a term asks for.

    Args:
        borrowed: teacher and prompts.
        terms: those of G, by name.
        views: of the teacher's stages that these terms read.
        config: their weights.
        seed: of the augmentation.

    Raises:
        KDError: a term with parameters has no optimiser.
    """

    def __init__(
        self, borrowed: Borrowed, terms: Mapping[str, Term], views: Sequence[StageView], config: KDConfig, seed: int
    ) -> None:
        self._borrowed, self.terms, self._views, self._weights = borrowed, terms, tuple(views), config.weights
        self.needs = Needs.union(term.needs for term in terms.values())
        self._optimizers = _optimizers(terms)
        self._seed, self.calls = seed, 0
        self._groups: dict[str, dict[str, Term]] = {}  # terms by the augmentation that they ask for
        for name, term in terms.items():
            self._groups.setdefault(term.augmentation(borrowed.embedder.view), {})[name] = term

    def distilled(self, fake: Tensor, real: Tensor | None, keys: Tensor | None) -> dict[str, Distilled]:
        """By term, not yet balanced. Trains the terms that have an optimiser first."""
        outputs = (fake,) if fake.requires_grad else ()
        if self.needs.real_images and real is not None:
            self._borrowed.embedder.watch_real(real, augmented=self._borrowed.embedder.view == "seen")
        steps: dict[str, GeneratorStep] = {}
        for policy, terms in self._groups.items():
            steps |= dict.fromkeys(terms, self._step(self._augmentation(policy, fake), terms, fake, real, keys))
        self.calls += 1
        for name, optimizer in self._optimizers.items():
            train_term(self.terms[name], optimizer, steps[name])
        return {
            name: weighted({name: term.generator_loss(steps[name])}, self._weights, outputs)
            for name, term in self.terms.items()
        }

    def trained_apart(self) -> set[int]:
        """The ids of the parameters that have an optimiser of their own."""
        return {id(p) for name in self._optimizers for p in self.terms[name].parameters()}

    def state_dict(self) -> dict[str, Any]:
        """Of the optimisers, by term."""
        return {name: optimizer.state_dict() for name, optimizer in self._optimizers.items()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        for name, optimizer in self._optimizers.items():
            if name not in state:
                raise KDError(
                    f"the saved distillation has no '{name}', which is trained now; give {arg(name, 0)} to continue "
                    "without it"
                )
            optimizer.load_state_dict(copy.deepcopy(state[name]))  # it would share the tensors otherwise

    def _augmentation(self, policy: str, images: Tensor) -> Augmentation | None:
        """Of this step; the caller's generators stay as they are."""
        if policy == NONE:
            return None
        augment, draws = DiffAugment(policy), draws_of(self._seed, rank(), self.calls, images.device)
        return lambda images: self._borrowed.embedder.augmented(images, augment, draws)

    def _step(
        self,
        augment: Augmentation | None,
        terms: Mapping[str, Term],
        fake: Tensor,
        real: Tensor | None,
        keys: Tensor | None,
    ) -> GeneratorStep:
        """What the terms of one augmentation see."""
        embeddings, fake_stages = self._embedded(augment, fake, None)
        texts = self._borrowed.texts(embeddings)
        step = GeneratorStep(gathered(embeddings), texts=texts, fake_stages=_gathered(fake_stages))
        if not any(term.needs.real_images for term in terms.values()):
            return step
        if real is None:
            name = next(name for name, term in terms.items() if term.needs.real_images)
            raise KDError(
                f"{arg(name, self._weights[name])}: call kd.for_generator(fake, real, loss) with real images, or set "
                f"{arg(name, 0)}"
            )
        with torch.no_grad():
            of_reals, real_stages = self._embedded(augment, real, keys)
        return dataclasses.replace(step, real=gathered(of_reals.to(embeddings)), real_stages=_gathered(real_stages))

    def _embedded(
        self, augment: Augmentation | None, images: Tensor, keys: Tensor | None
    ) -> tuple[Tensor, dict[StageView, Tensor]]:
        if augment is not None:
            images, keys = augment(images), None  # no two look the same: not cached
        return self._borrowed.embedder.embed_with_stages(images, self._views, keys)


def _gathered(stages: Mapping[StageView, Tensor]) -> dict[StageView, Tensor]:
    return {view: gathered(stage) for view, stage in stages.items()}


def _optimizers(terms: Mapping[str, Term]) -> dict[str, torch.optim.Optimizer]:
    """The optimisers of G's terms with parameters."""
    optimizers: dict[str, torch.optim.Optimizer] = {}
    for name, term in terms.items():
        optimizer = term.make_optimizer()
        if optimizer is not None:
            optimizers[name] = optimizer
        elif "D" not in term.sides and any(True for _ in term.parameters()):
            raise KDError(f"term '{name}' acts on G and has parameters: its make_optimizer() must return an optimiser")
    return optimizers
