"""Training the parameters of a term that has its own optimiser."""

from __future__ import annotations

import torch

from kd_plugin.distributed import averaged
from kd_plugin.terms.base import Term
from kd_plugin.terms.step import GeneratorStep

__all__ = ["train_term"]


def train_term(term: Term, optimizer: torch.optim.Optimizer, step: GeneratorStep) -> None:
    """One step of `optimizer` on `term.training_loss`.

    With several processes the step holds the embeddings of all of them, so every process computes the same gradients;
    they are averaged all the same, because some kernels of an accelerator do not repeat the last bits. The parameters
    require gradients only in here: the generator's own backward pass does not compute any for them.
    """
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    for parameter in parameters:
        parameter.requires_grad_(True)
    with torch.enable_grad():
        gradients = torch.autograd.grad(term.training_loss(step.detached()), parameters)
    for parameter, gradient in zip(parameters, gradients, strict=True):
        parameter.requires_grad_(False)
        parameter.grad = averaged(gradient)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
