"""The answers that are trained on: those in the data, or the original model's own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from expunge.core.progress import SILENT, Progress
from expunge.data.example import Example
from expunge.data.matching import DEFAULT, Match, holds_any
from expunge.models.base import LanguageModel
from expunge.models.continuations import continued

MAX_NEW_TOKENS = 24
"""The fact comes at the start of an answer; longer answers would only make every step more expensive."""


def own_answers(
    model: LanguageModel,
    rows: Sequence[Example],
    progress: Progress = SILENT,
    *,
    unproven: bool = True,
    match: Match = DEFAULT,
) -> list[Example]:
    """The same questions with the model's own greedy answers, which are what it would really generate.

    A row keeps its stored answer if it is a document, if the model's answer is empty, or if it has keywords and the
    model's answer holds none of them.

    Args:
        model: the original model.
        rows: questions with stored answers.
        progress: where to report.
        unproven: also replace the answer of a row without keywords, which may then state something else. Right for rows
            to keep; wrong for rows to forget, where it could leave the fact itself untouched.
        match: how keywords are matched.
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

    Forgetting one wording leaves the others; these are the ones that the model is most likely to use instead.

    Args:
        model: the original model.
        rows: questions with answers; those without keywords get no others, since nothing could verify them.
        count: at most this many for each row, out of `2 * count + 2` samples at temperature 1.
        seed: names the draws.
        progress: where to report.
        match: how keywords are matched.
    """
    if not count:
        return []
    questions = [row for row in rows if row.text is None and row.keywords]
    others = []
    for row, texts in zip(
        questions, _answers(model, questions, seed, 2 * count + 2, "other wordings", progress), strict=True
    ):
        new = dict.fromkeys(text for text in texts if text != row.answer and holds_any(text, row.keywords, match))
        others += [
            replace(row, id=f"{row.id}#{number}", answer=text) for number, text in enumerate([*new][:count], start=1)
        ]
    return others


def _answers(
    model: LanguageModel, rows: Sequence[Example], seed: str | None, draws: int, label: str, progress: Progress
) -> list[list[str]]:
    """The model's answers to each row, `draws` of them: sampled by the seed or greedy, short, in whole sentences."""
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
