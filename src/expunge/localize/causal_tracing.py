"""Causal tracing: blocks whose clean states restore a fact when its subject is corrupted (arXiv:2202.05262)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from pydantic import Field

from expunge.core.errors import UserError
from expunge.core.records import Frozen, LayerCurve
from expunge.data.example import Example
from expunge.data.generator import named_generator
from expunge.data.splits import Splits
from expunge.localize._blocks import best_window, share_of_depth
from expunge.localize._facts import Fact, find_fact, subject_of
from expunge.localize.base import Localizer, Selection
from expunge.models.base import LanguageModel
from expunge.models.causal_restore import CausalRestorer, TraceResult, embedding_width, input_embeddings
from expunge.models.forward import score_rows
from expunge.models.module_names import parameter_names
from expunge.models.sites import Site
from expunge.numerics.intervals import Numbers, mean_band


@dataclass(frozen=True)
class Known:
    """Facts that the model knows, and the numbers of other rows."""

    facts: list[Fact]
    unknown: int
    without_subject: int


class CausalTracing(Localizer):
    """A window of blocks with the largest average indirect effect on forget facts that the model knows.

    A fact is run clean, then with noise on its subject's input embeddings, then, for each block, with the noise and
    that block's clean output restored at the subject's last token. The difference between the third and the second run
    is the block's indirect effect, that between the first and the second the total effect. KUDA's tracing
    (arXiv:2602.19275) is known from summaries only: the feed-forward site, the restoration of one block and a window of
    three are a reconstruction.
    """

    class Config(Frozen):
        """Options of the facts, the runs and the choice."""

        facts: int = Field(40, ge=1, description="Maximum number of facts to trace, drawn by the seed from known ones")
        target: Literal["keywords", "answer"] = Field(
            "keywords",
            description="Tokens whose probability is traced: the answer's keywords, if it contains any, or all",
        )
        min_probability: float = Field(
            0.2, ge=0, le=1, description="A fact is known if its target has at least this probability per token"
        )
        min_effect: float = Field(0.05, description="Omit facts whose probability the noise lowers by less")
        noise: float = Field(3.0, ge=0, description="Noise, in standard deviations of the subjects' input embeddings")
        draws: int = Field(10, ge=1, description="Noise draws per fact, the same for every block")
        noisy: Literal["everywhere", "question"] = Field(
            "everywhere", description="Whether to corrupt the subject in the answer too, where it would be revealed"
        )
        site: Site = Field(
            "ffn", description="Output to restore: of the feed-forward part, the attention, or the whole block"
        )
        tokens: Literal["last", "subject", "all"] = Field(
            "last",
            description="Where to restore it: at the subject's last token, at all its tokens, or at every token",
        )
        restore_width: int = Field(1, ge=1, description="Neighbouring blocks to restore together")
        window: int = Field(3, ge=1, description="Neighbouring blocks to choose")
        depth: tuple[float, float] = Field(
            (0.0, 1.0),
            description="Blocks are searched from one share of the depth up to another; the inputs of the first blocks "
            "are close to the words themselves, so that changes there affect every answer",
        )
        modules: tuple[str, ...] = Field(
            ("mlp.down_proj",), description="Module names within a block to train; empty: all"
        )

    def select(self, model: LanguageModel, splits: Splits, seed: int) -> Selection:
        """Parameters of the named modules in the best window; the lowest of equal ones.

        Raises:
            UserError: no row with a question and an answer, a subject that is not in its question, no known fact, no
                fact that depends on its subject, invalid shares of the depth, or a module name that a block lacks.
        """
        num_layers = len(model.blocks())
        within = share_of_depth(self.config.depth, num_layers)
        parameter_names(model, range(num_layers), self.config.modules)  # before minutes of tracing
        known = self._known(model, splits.forget, seed)
        deviation = self.config.noise * _deviation(model, known.facts)
        runs = CausalRestorer(model, self.config.site, self.config.restore_width)
        traced = [self._trace(model, runs, fact, deviation, seed) for fact in known.facts]
        used = [one for one in traced if one.clean - one.corrupted >= self.config.min_effect]
        if not used:
            raise UserError(
                f"localize: noise on the subject lowers none of {len(traced)} known facts by {self.config.min_effect}; "
                "raise localize.noise or lower localize.min_effect"
            )
        effects = np.array([one.restored for one in used]) - np.array([[one.corrupted] for one in used])
        total = np.array([one.clean - one.corrupted for one in used])
        curve = _mean_with_interval("average indirect effect", effects, seed)
        layers = list(best_window(curve.values, self.config.window, within))
        evidence = {
            "layers": layers,
            "modules": list(self.config.modules),
            "facts": len(used),
            "unknown": known.unknown,
            "without_subject": known.without_subject,
            "small_effect": len(traced) - len(used),
            "clean_probability": float(np.mean([one.clean for one in used])),
            "corrupted_probability": float(np.mean([one.corrupted for one in used])),
            "total_effect": float(total.mean()),
            "share_of_total_effect": (effects.sum(axis=0) / total.sum()).tolist(),
            "noise_deviation": deviation,
        }
        return Selection(parameter_names(model, layers, self.config.modules), evidence, (curve,))

    def _known(self, model: LanguageModel, rows: Sequence[Example], seed: int) -> Known:
        """Facts in an order drawn by the seed, until there are enough."""
        asked = [row for row in rows if row.question and row.answer]
        if not asked:
            raise UserError("localize: causal tracing needs forget rows with a question and an answer; there are none")
        subjects = [(row, subject) for row in asked if (subject := subject_of(row)) is not None]
        order = torch.randperm(len(subjects), generator=named_generator(f"{seed}/causal_tracing/facts")).tolist()
        facts: list[Fact] = []
        unknown = 0
        for start in range(0, len(order), self.config.facts):
            some = [subjects[place] for place in order[start : start + self.config.facts]]
            found = [find_fact(model.encoder, row, subject, self.config.target == "keywords") for row, subject in some]
            probabilities = [float(logp.mean().exp()) for logp in score_rows(model, [fact.encoded for fact in found])]
            known = [
                fact
                for fact, probability in zip(found, probabilities, strict=True)
                if probability >= self.config.min_probability
            ]
            unknown += len(found) - len(known)
            facts += known
            if len(facts) >= self.config.facts:
                break
        if not facts:
            raise UserError(
                f"localize: no known fact to trace: of {len(asked)} forget rows {len(asked) - len(subjects)} have no "
                f"subject in their question, and no other has an answer of probability {self.config.min_probability} "
                "(localize.min_probability)"
            )
        return Known(facts[: self.config.facts], unknown, len(asked) - len(subjects))

    def _trace(
        self, model: LanguageModel, runs: CausalRestorer, fact: Fact, deviation: float, seed: int
    ) -> TraceResult:
        ids, labels = fact.encoded.ids, fact.encoded.places
        read = range(max(labels))
        subject = fact.subject + (fact.repeated if self.config.noisy == "everywhere" else ())
        noisy = [place for place in subject if place in read]
        restored = {"last": [fact.last], "subject": fact.subject, "all": read}[self.config.tokens]
        generator = named_generator(f"{seed}/causal_tracing/{fact.row.id}")
        shape = (self.config.draws, len(noisy), embedding_width(model))
        return runs.trace(ids, labels, noisy, restored, deviation * torch.randn(shape, generator=generator))


def _deviation(model: LanguageModel, facts: Sequence[Fact]) -> float:
    """Standard deviation over all entries of the subjects' input embeddings."""
    ids = torch.tensor([fact.encoded.ids[place] for fact in facts for place in fact.subject], device=model.device)
    with torch.no_grad():
        return float(input_embeddings(model, ids).float().std())


def _mean_with_interval(name: str, effects: Numbers, seed: int) -> LayerCurve:
    """Mean over facts, with its 95% bootstrap interval: (F, L) -> L values."""
    mean, low, high = mean_band(effects, seed)
    return LayerCurve(name=name, values=mean.tolist(), low=low.tolist(), high=high.tolist())
