"""WHP: learn the predictions that fine-tuning on the forget rows would not raise (arXiv:2310.02238)."""

from __future__ import annotations

from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor

from expunge.forget.base import ForgetLoss
from expunge.losses.base import Project, Setup, TokenLossConfig, TuningConfig, View
from expunge.models.base import LanguageModel
from expunge.models.forward import CachedReference, Needs, row_set
from expunge.numerics.token import reduce_tokens, token_logp


class GenericPrediction(ForgetLoss):
    """Cross-entropy to `v_generic = v_base - a ReLU(v_reinforced - v_base)`: Who's Harry Potter.

    v are logits at the label positions, of the original model and of the model after fine-tuning on the forget rows
    (the reinforced one). Of both, final hidden states are kept and no second model. With target `label` the labels are
    the tokens of the largest generic logit, as in the paper; with `distribution` they are the softmax of all generic
    logits, which is what MUSE answers with: it keeps both models and mixes their logits at every step, and what is
    saved here is one ordinary model. The paper also replaces names by generic ones before the original model reads the
    text, by a dictionary that a larger model wrote; that is a matter of the rows and left out.
    """

    class Config(TuningConfig, TokenLossConfig):
        """The reinforced model, and what is made of it."""

        alpha: float = Field(5.0, gt=0, description="How far logits that fine-tuning raised are lowered (a)")
        target: Literal["label", "distribution"] = Field(
            "label", description="label: the token of the largest generic logit; distribution: the softmax of them all"
        )

    needs = Needs(reference_logits=True)
    logged = ("generic_label_share",)

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self._reinforced: CachedReference | None = None

    def prepare(self, setup: Setup) -> None:
        """Remember the rows: the reinforced model is made in `start`."""
        self._setup: Setup | None = setup

    def start(self, model: LanguageModel, project: Project) -> None:
        """Fine-tune on the rows, keep what the reinforced model makes of them, put the weights back."""
        assert self._setup is not None
        with self._setup.tuned(self.config).swapped_in():
            rows = row_set(model, self._setup.sequences, self.needs, inputs=self._setup.inputs)
        self._reinforced, self._setup = rows.reference, None

    def loss(self, view: View) -> Tensor:
        """Reduced over label tokens; the share of labels that the generic prediction gives anyway is logged."""
        assert self._reinforced is not None, "`start` comes before the first step"
        batch = view.batch
        with torch.no_grad():
            generic = generic_logits(view.reference_logits(), self._reinforced.logits(batch.indices), self.config.alpha)
            labels = generic.argmax(-1)
        self.logs = {"generic_label_share": (labels == batch.labels).float().mean()}
        if self.config.target == "label":
            values = -token_logp(view.logits(), labels)
        else:
            values = -(generic.softmax(-1) * view.logits().float().log_softmax(-1)).sum(-1)
        return reduce_tokens(values, batch.rows, batch.num_rows, self.config.reduction)


def generic_logits(base: Tensor, reinforced: Tensor, alpha: float) -> Tensor:
    """(N, V) float32: the base logits, lowered where the reinforced ones are higher."""
    return base.float() - alpha * (reinforced.float() - base.float()).relu()
