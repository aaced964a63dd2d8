"""Which answers are trained on: those in the data, or what the original model itself says."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from expunge.core.progress import SILENT, Progress
from expunge.data.example import Example
from expunge.data.matching import DEFAULT, Match, holds_any
from expunge.models.base import LanguageModel
from expunge.models.continuations import continued

MAX_NEW_TOKENS = 24
"""The start of an answer is where the fact is said; longer ones would only make every step dearer."""


def own_answers(
    model: LanguageModel,
    rows: Sequence[Example],
    progress: Progress = SILENT,
    *,
    unproven: bool = True,
    match: Match = DEFAULT,
) -> list[Example]:
    """The same questions with the model's own greedy answers: the path that it really takes.

    A row keeps its stored answer when it is a document, when the model says nothing, or when it has keywords and the
    model's answer holds none of them.

    Args:
        model: the original model.
        rows: questions with stored answers.
        progress: where to report.
        unproven: also replace the answer of a row without keywords, which may then say something else. Right for rows
            to keep; wrong for rows to forget, where it could leave the fact itself untouched.
        match: how keywords are looked for.
    """
    questions = [row for row in rows if row.text is None]
    texts = iter(_answers(model, questions, None, 1, "own answers", progress))
    answered = []
    for row in rows:
        text = next(texts)[0] if row.text is None else ""
        taken = bool(text) and (holds_any(text, row.keywords, match) if row.keywords else unproven)
        answered.append(replace(row, answer=text) if taken else row)
    return answered


def other_wordings(
    model: LanguageModel,
    rows: Sequence[Example],
    count: int,
    seed: str,
    progress: Progress = SILENT,
    match: Match = DEFAULT,
) -> list[Example]:
    """More rows to forget: sampled answers that hold a keyword and differ from the row's answer and from one another.

    Forgetting one wording leaves the others; these are the ones that the model most often falls back on.

    Args:
        model: the original model.
        rows: questions with answers; those without keywords get no others, since nothing would prove what they say.
        count: at most this many for each row, out of `2 * count + 2` samples at temperature 1.
        seed: names the draws.
        progress: where to report.
        match: how keywords are looked for.
    """
    if not count:
        return []
    asked = [row for row in rows if row.text is None and row.keywords]
    others = []
    for row, texts in zip(asked, _answers(model, asked, seed, 2 * count + 2, "other wordings", progress), strict=True):
        new = dict.fromkeys(text for text in texts if text != row.answer and holds_any(text, row.keywords, match))
        others += [
            replace(row, id=f"{row.id}#{number}", answer=text) for number, text in enumerate([*new][:count], start=1)
        ]
    return others


def _answers(
    model: LanguageModel, rows: Sequence[Example], seed: str | None, draws: int, label: str, progress: Progress
) -> list[list[str]]:
    """What the model answers to each row, `draws` times: sampled by the seed or greedy, whole sentences, cut short."""
    prompts = [model.encoder.answer_prompt(row) for row in rows]
    seeds = None
    if seed is not None:
        seeds = [[f"{seed}/{place}/{draw}" for draw in range(draws)] for place in range(len(rows))]
    with progress.bar(label, len(prompts)) as bar:
        found = continued(model, prompts, MAX_NEW_TOKENS, seeds, bar=bar)
    stop = model.encoder.stop_ids
    return [
        [_whole_sentences(model.encoder.decode(ids), ended=ids[-1] in stop) for ids in answers] for answers in found
    ]


def _whole_sentences(text: str, ended: bool) -> str:
    """An answer that was cut off, up to its last full stop; all of it when it has none."""
    stop = text.rfind(".")
    return text if ended or stop < 0 else text[: stop + 1]
