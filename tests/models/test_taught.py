"""The shared tiny model is a fair subject: it knows its facts before anything is forgotten."""

from expunge.data.example import Example
from expunge.models.base import LanguageModel
from expunge.models.generate import decode
from expunge.models.prefix import encode_prompts


def test_tiny_model_knows_what_it_was_taught(tiny: LanguageModel, examples: dict[str, tuple[Example, ...]]) -> None:
    for rows in examples.values():
        prompts = [tiny.encoder.prompt(row.question or "") for row in rows]
        answers = decode(encode_prompts(tiny, prompts), 48, tiny.encoder.stop_ids)
        right = sum(tiny.encoder.decode(ids) == row.answer for ids, row in zip(answers, rows, strict=True))
        assert right >= 0.9 * len(rows)
