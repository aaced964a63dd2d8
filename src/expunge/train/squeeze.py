"""The squeezing diagnostic: while a forget answer falls, do other wordings of it rise (arXiv:2510.19422)?

Checks are written to the trainer's own log, which checkpoints keep: a resumed run records what an unbroken one would.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from expunge.core.progress import Bar
from expunge.core.squeeze_record import Squeeze
from expunge.data.batch import collate
from expunge.data.encode import Encoded
from expunge.data.example import Example
from expunge.data.generator import named_generator
from expunge.data.matching import holds_any
from expunge.data.rouge import scorer
from expunge.models.base import LanguageModel
from expunge.models.batches import in_batches
from expunge.models.forward import Forward
from expunge.train.candidates import Followed, Generated, draw, pools, ranked, score, target_of
from expunge.train.config import SqueezeConfig
from expunge.train.job import TrainingJob
from expunge.train.squeeze_scores import Counts, Snapshot, summarise

EARLY_STEPS = (1, 2, 4, 8)
"""Measured steps of the first epoch: a rise comes early, and may be over at its end."""
_FEWEST = 3
"""Candidates that put one in each band."""
_KEY = "squeeze"


class Squeezing(TrainerCallback):
    """Scores targets and candidates at intervals, and changes nothing.

    Args:
        job: the original model now, the one being trained later; seed and keyword matching.
        config: sizes.
        followed: the prompts; if there are none, nothing is measured.
        counts: how many prompts and candidates were kept and dropped.
        steps_per_epoch: optimizer steps.
    """

    def __init__(
        self,
        job: TrainingJob,
        config: SqueezeConfig,
        followed: Sequence[Followed],
        counts: Counts,
        steps_per_epoch: int,
    ) -> None:
        model = job.model
        self.model = model
        self.followed = followed
        self.config = config
        self.steps_per_epoch = steps_per_epoch
        self.seed = job.seed
        self.match = job.match
        self.counts = counts
        self.result: Squeeze | None = None
        self._neighbours = initial_neighbours(model, [one.target for one in followed], config.top_k)

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Measure the original model."""
        if state.global_step == 0:
            self._take_snapshot(state)

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Measure at the early steps, at the end of each epoch and at the last step."""
        step = state.global_step
        early = step in EARLY_STEPS and step <= self.steps_per_epoch
        if early or step % self.steps_per_epoch == 0 or step == state.max_steps:
            self._take_snapshot(state)

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Summarise all snapshots, including those from before an interruption."""
        snapshots = [Snapshot.model_validate(entry[_KEY]) for entry in state.log_history if _KEY in entry]
        self.result = summarise(snapshots, self.counts, self.seed)

    def _take_snapshot(self, state: TrainerState) -> None:
        """Written past the trainer's loggers, which take single numbers only."""
        if not self.followed:
            return
        end_of_epoch = state.global_step > 0 and state.global_step % self.steps_per_epoch == 0
        compared = self.config.dynamic and (end_of_epoch or state.global_step == 0)
        snapshot = Snapshot(
            step=state.global_step,
            epoch=state.epoch or 0.0,
            end_of_epoch=end_of_epoch,
            levels=levels(self.model, self.followed),
            tokens=token_level(self.model, [one.target for one in self.followed], self._neighbours, self.config.top_k),
            samples=self._compare() if compared else {},
        )
        entry: dict[str, Any] = {"step": snapshot.step, "epoch": snapshot.epoch, _KEY: snapshot.model_dump()}
        state.log_history.append(entry)

    def _compare(self) -> dict[str, list[float]]:
        """Overlap of targets and answers sampled from the current model: one number per prompt.

        Every check uses the same random numbers, so that differences come from the model.
        """
        prompts = [one.target.prompt for one in self.followed]
        names = [f"{self.seed}/squeeze/dynamic/{one.row.id}" for one in self.followed]
        drawn = draw(self.model, prompts, names, self.config.samples, self.config.max_new_tokens, Bar())
        texts = [self.model.encoder.decode(one.target.labels) for one in self.followed]
        with_keywords = [(one.row, some) for one, some in zip(self.followed, drawn, strict=True) if one.row.keywords]
        return {
            "rouge_l": [rouge_l_recall(text, some) for text, some in zip(texts, drawn, strict=True)],
            "keyword_recall": [
                sum(holds_any(answer.text, row.keywords, self.match) for answer in some) / len(some)
                for row, some in with_keywords
            ],
        }


def follow(job: TrainingJob, config: SqueezeConfig, rows: Sequence[Example], steps_per_epoch: int) -> Squeezing:
    """Choose prompts, generate candidates with the original model and rank them; call it before any weight moves.

    Args:
        job: the original model, and the settings.
        config: how many prompts and candidates.
        rows: the rows to forget.
        steps_per_epoch: optimizer steps.
    """
    model, seed = job.model, job.seed
    order = torch.randperm(len(rows), generator=named_generator(f"{seed}/squeeze/prompts"))[: config.prompts].tolist()
    chosen = [rows[index] for index in sorted(order)]
    targets = [target_of(model, row) for row in chosen]
    with job.progress.bar("other wordings", 2 * len(chosen)) as bar:
        found = pools(model, chosen, targets, config, f"{seed}/squeeze", bar)
    places = [place for place, pool in enumerate(found) if len(pool.kept) >= _FEWEST]
    prompts = [targets[place].prompt for place in places]
    answers = [[answer.ids for answer in found[place].kept] for place in places]
    followed = [
        Followed(chosen[place], targets[place], ids, ranked(scores))
        for place, ids, scores in zip(places, answers, score(model, prompts, answers), strict=True)
    ]
    return Squeezing(job, config, followed, Counts.of(found, _FEWEST), steps_per_epoch)


def levels(model: LanguageModel, followed: Sequence[Followed]) -> dict[str, list[list[float]]]:
    """[summed, mean] log-probability, for each prompt, of the target and of each band's average candidate.

    Returns:
        `target` and `RANKING/BAND`, each with one pair a prompt.
    """
    prompts = [one.target.prompt for one in followed]
    scores = score(model, prompts, [[one.target.labels, *one.candidates] for one in followed])
    found: dict[str, list[list[float]]] = {"target": [some[0] for some in scores]}
    for one, (_, *candidates) in zip(followed, scores, strict=True):
        for ranking, bands in one.bands.items():
            for band, places in bands.items():
                average = torch.tensor([candidates[place] for place in places], dtype=torch.float64).mean(0)
                found.setdefault(f"{ranking}/{band}", []).append(average.tolist())
    return found


@torch.no_grad()
def initial_neighbours(model: LanguageModel, targets: Sequence[Encoded], top_k: int) -> list[Tensor]:
    """The original model's likeliest tokens at each token of each target: (n, k) ids."""
    found: dict[int, Tensor] = {}

    def keep(place: int, logp: Tensor) -> None:
        found[place] = logp.topk(min(top_k, logp.shape[-1])).indices

    _along(model, targets, keep)
    return [found[place] for place in range(len(targets))]


@torch.no_grad()
def token_level(
    model: LanguageModel, targets: Sequence[Encoded], neighbours: Sequence[Tensor], top_k: int
) -> dict[str, list[float]]:
    """Statistics of the next-token distributions along each target, means over its tokens.

    Args:
        model: any model.
        targets: P encoded rows.
        neighbours: (n, k) initial neighbours of each; the target's own token among them counts as none.
        top_k: how many of the current likeliest tokens make the top-k mass.

    Returns:
        probability, neighbour_mass, top_k_mass and entropy (nats), each with one number a prompt.
    """
    names = ("probability", "neighbour_mass", "top_k_mass", "entropy")
    found = {name: [0.0] * len(targets) for name in names}

    def measure(place: int, logp: Tensor) -> None:
        labels = torch.tensor(targets[place].labels, device=logp.device)[:, None]
        near, share = neighbours[place], logp.exp()
        values = (
            share.gather(1, labels)[:, 0],
            (share.gather(1, near) * (near != labels)).sum(-1),
            share.topk(min(top_k, share.shape[-1])).values.sum(-1),
            torch.special.entr(share).sum(-1),
        )
        for name, value in zip(names, values, strict=True):
            found[name][place] = float(value.mean())

    _along(model, targets, measure)
    return found


def _along(model: LanguageModel, targets: Sequence[Encoded], visit: Callable[[int, Tensor], None]) -> None:
    """Call `visit` with the place of each target and the (n, V) log-probabilities before its tokens, float32."""

    def work(places: Sequence[int], _: int) -> None:
        rows = [targets[place] for place in places]
        with model.evaluating():
            logits = Forward(model, collate(rows, places).to(model.device)).logits()
        logp = torch.log_softmax(logits.float(), -1)
        for place, some in zip(places, torch.split(logp, [len(row.labels) for row in rows]), strict=True):
            visit(place, some)

    in_batches(model.budget, model.device, "vocabulary", [len(target.ids) for target in targets], work)


def rouge_l_recall(target: str, answers: Sequence[Generated]) -> float:
    """Mean over answers of the share of the target that they repeat in order, as the metric `rouge_l_recall`."""
    return sum(float(scorer("rougeL").score(target, answer.text)["rougeL"].recall) for answer in answers) / len(answers)
