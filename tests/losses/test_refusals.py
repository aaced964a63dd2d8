"""The refusals: what is shipped, what a user may bring, and how they are drawn."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from expunge.core.errors import UserError
from expunge.data.batch import collate
from expunge.data.example import Example, normalise
from expunge.forget.refusal import Refusal
from expunge.losses.base import Setup
from expunge.losses.refusals import draw_refusal, load_refusals, refused
from expunge.models.base import LanguageModel
from expunge.models.forward import Forward

SHIPPED = load_refusals()


def test_shipped_refusals_are_many_short_and_different() -> None:
    assert len({normalise(line) for line in SHIPPED}) == len(SHIPPED) >= 100
    assert all(3 <= len(line.split()) <= 14 and line.isascii() for line in SHIPPED)


def test_users_own_refusals(tmp_path: Path) -> None:
    path = tmp_path / "mine.txt"
    path.write_text("\ufeffNo.\n\n  Ask my lawyer. \r\n", encoding="utf-8")
    assert load_refusals(str(path)) == ("No.", "Ask my lawyer.")


@pytest.mark.parametrize(
    ("content", "message"), [(None, "no such file"), (b" \n\n", "no sentence"), (b"\xff", "UTF-8")]
)
def test_refusals_that_cannot_be_had(tmp_path: Path, content: bytes | None, message: str) -> None:
    path = tmp_path / "mine.txt"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError, match=message) as caught:
        load_refusals(str(path))
    assert "mine.txt" in str(caught.value)


def test_draw_depends_on_each_of_seed_epoch_and_row() -> None:
    """The known value pins the draw across machines and versions: a resumed run must not draw anew."""
    base = [draw_refusal(SHIPPED, "0/forget", 0, row) for row in range(30)]
    assert base == [draw_refusal(SHIPPED, "0/forget", 0, row) for row in range(30)]
    assert draw_refusal(["a", "b", "c", "d", "e"], "0/forget", 2, 7) == "e"
    assert len(set(base)) > 20
    for seed, epoch in (("0/forget", 1), ("1/forget", 0), ("0/retain", 0)):
        other = [draw_refusal(SHIPPED, seed, epoch, row) for row in range(30)]
        assert sum(one == two for one, two in zip(base, other, strict=True)) < 5


def test_draw_is_uniform() -> None:
    """3000 draws of 10: a count has mean 300 and deviation sqrt(3000 * 0.1 * 0.9) = 16; all within 4 of those."""
    sentences = [str(number) for number in range(10)]
    counts = Counter(draw_refusal(sentences, "s", epoch, row) for epoch in range(30) for row in range(100))
    assert max(abs(counts[sentence] - 300) for sentence in sentences) < 66


def test_every_epoch_asks_the_same_questions_and_ends_otherwise(
    tiny: LanguageModel, examples: dict[str, tuple[Example, ...]]
) -> None:
    """A view of rows 2 and 0 in epoch 1 finds their refusals there, whatever else is in the batch."""
    rows = examples["forget"][:4]
    setup = Setup(tiny, rows, [tiny.encoder.example(row) for row in rows], "0/forget", 3)
    sequences = refused(setup, SHIPPED)
    assert len(sequences) == 12
    for place, sequence in enumerate(sequences):
        epoch, row = divmod(place, 4)
        assert sequence.prompt == setup.sequences[row].prompt
        assert tiny.encoder.decode(sequence.labels) == draw_refusal(SHIPPED, "0/forget", epoch, row)
        assert sequence.labels[-1] == tiny.encoder.end_id
    once = refused(setup, SHIPPED, redraw=False)
    assert once == [*sequences[:4]] * 3
    view = Forward(tiny, collate([setup.sequences[2], setup.sequences[0]], [2, 0]), epoch=1)
    loss = Refusal(Refusal.Config())
    loss.prepare(setup)
    found = loss.refusals(view)
    assert found.batch.labels.tolist() == [*sequences[6].labels, *sequences[4].labels]


def test_keyword_targets_do_not_reach_the_refusals(
    tiny: LanguageModel, examples: dict[str, tuple[Example, ...]]
) -> None:
    rows = examples["forget"][:2]
    whole, keywords = ([encode(row) for row in rows] for encode in (tiny.encoder.example, tiny.encoder.keywords))
    assert [row.labels for row in whole] != [row.labels for row in keywords]
    found = [refused(Setup(tiny, rows, sequences, "s", 2), SHIPPED) for sequences in (whole, keywords)]
    assert found[0] == found[1]


def test_documents_are_named() -> None:
    rows = [Example("q", question="Who?", answer="I."), Example("novel#3", text="It was a dark night.")]
    loss = Refusal(Refusal.Config())
    loss.check(rows[:1])
    with pytest.raises(UserError, match=r"'novel#3'.*document"):
        loss.check(rows)
