"""Soft prompts: vectors in the place of an adversary's tokens, trained by gradient."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from pydantic import Field
from torch import Tensor

from expunge.attacks._objective import Goal, soft_loss
from expunge.core.records import Frozen
from expunge.models.base import LanguageModel
from expunge.models.causal_restore import input_embeddings


class SoftPromptConfig(Frozen):
    """How vectors are trained."""

    length: int = Field(8, ge=1, description="Vectors that stand before the question")
    lr: float = Field(
        0.1, gt=0, description="Adam's step, as a share of the root mean square of an embedding's entries"
    )
    rows_per_step: int = Field(4, ge=1, description="Rows of one step, drawn anew at each step")


def tune(
    model: LanguageModel,
    goals: Sequence[Goal],
    config: SoftPromptConfig,
    generator: torch.Generator,
    match: float = 0.0,
) -> Iterator[Tensor]:
    """The (K, D) vectors after each step, without end; the caller stops. No weight of the model moves.

    Args:
        model: any model, in evaluation mode.
        goals: prompts with holes.
        config: length and speed.
        generator: of every draw; the vectors start as embeddings of drawn tokens.
        match: weight of the distance to the original model's states.
    """
    ids = torch.randint(len(model.tokenizer), (config.length,), generator=generator)
    vectors = input_embeddings(model, ids.to(model.device)).detach().float().clone().requires_grad_()
    optimizer = torch.optim.Adam([vectors], lr=config.lr * float(vectors.detach().square().mean().sqrt()))
    while True:
        rows = torch.randperm(len(goals), generator=generator)[: config.rows_per_step].tolist()
        with torch.enable_grad():
            loss = soft_loss(model, [goals[row] for row in rows], vectors, match)
            (vectors.grad,) = torch.autograd.grad(loss, vectors)
        optimizer.step()
        yield vectors.detach().clone()
