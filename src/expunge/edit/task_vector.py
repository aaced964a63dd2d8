"""Task vectors: fine-tune on the forget rows, then go the opposite way (arXiv:2212.04089)."""

from __future__ import annotations

import torch
from pydantic import Field

from expunge.edit.base import Advance, Edit
from expunge.losses.base import Setup, TuningConfig


class TaskVector(Edit):
    """Negation of a task vector: `w <- w - c (w_tuned - w)`, where w_tuned is w after fine-tuning on the forget rows.

    Of a LoRA adapter the product of both factors is what fine-tuning adds to a matrix: the tuned factors are kept, and
    the second one, which starts at zero, is multiplied by -c. The model with it is `w - c (w_tuned - w)` all the same.
    """

    class Config(TuningConfig):
        """How the model is fine-tuned, and how far it then goes the other way."""

        strength: float = Field(1.0, gt=0, description="c: length of the step away, in task vectors")

    def apply(self, forget: Setup, retain: Setup, advance: Advance) -> None:
        """Fine-tune, take the difference, go the other way."""
        strength = self.config.strength
        tuned = forget.tuned(self.config)
        squares = 0.0
        with torch.no_grad():
            for (name, weight), other in zip(_trainable(forget), tuned.others, strict=True):
                if not forget.model.is_adapted:
                    squares += float((other - weight).square().sum(dtype=torch.float64))
                    weight.lerp_(other, -strength)
                elif "lora_A" in name:
                    weight.copy_(other)
                else:
                    weight.copy_(other.mul_(-strength))
        if not forget.model.is_adapted:
            self.logs = {"task_vector_norm": squares**0.5}
        advance(1.0)


def _trainable(setup: Setup) -> list[tuple[str, torch.nn.Parameter]]:
    named = setup.model.network.named_parameters()
    return [(name, weight) for name, weight in named if weight.requires_grad]
