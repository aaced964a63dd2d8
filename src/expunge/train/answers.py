"""Which answers are trained on: those in the data, or what the original model itself says."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from expunge.core.progress import SILENT, Progress
from expunge.data.batch import by_length
from expunge.data.example import Example, holds_any
from expunge.models.base import LanguageModel
from expunge.models.generate import decode, encode_prompts

MAX_NEW_TOKENS = 24
"""The start of an answer is where the fact is said; longer ones would only make every step dearer."""
_TOKEN_BUDGET = 2048


def own_answers(
    model: LanguageModel, rows: Sequence[Example], progress: Progress = SILENT, *, unproven: bool = True
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
    """
    questions = [index for index, row in enumerate(rows) if row.question is not None]
    prompts = [model.encoder.prompt(rows[index].question or "", rows[index].id) for index in questions]
    answered = list(rows)
    was_training = model.network.training
    model.network.eval()
    with progress.bar("own answers", len(prompts)) as bar:
        for places in by_length([len(prompt) + MAX_NEW_TOKENS for prompt in prompts], _TOKEN_BUDGET):
            prefix = encode_prompts(model, [prompts[place] for place in places])
            for place, ids in zip(places, decode(prefix, MAX_NEW_TOKENS, model.encoder.stop_ids), strict=True):
                row = rows[questions[place]]
                text = _whole_sentences(model.encoder.decode(ids), ended=len(ids) < MAX_NEW_TOKENS)
                if text and (holds_any(text, row.keywords) if row.keywords else unproven):
                    answered[questions[place]] = replace(row, answer=text)
            bar.advance(len(places))
    model.network.train(was_training)
    return answered


def _whole_sentences(text: str, ended: bool) -> str:
    """An answer that was cut off, up to its last full stop; all of it when it has none."""
    stop = text.rfind(".")
    return text if ended or stop < 0 else text[: stop + 1]
