"""Every metric: the contract that all keep, and values worked by hand."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from typing import Any, get_args

import numpy as np
import pytest
from rouge_score.rouge_scorer import RougeScorer
from stub_judge import Stub
from tiny_bert import save_tiny_bert
from transformers import BertForSequenceClassification, PreTrainedTokenizerFast
from worked import ROW, metric, scored

from expunge.core import plugins
from expunge.core.permission import granted
from expunge.data.example import Example, holds_any
from expunge.evaluate.base import Absent, Item, Need
from expunge.evaluate.score import FOLDER
from expunge.models.generate import Scored

NAMES = plugins.names(FOLDER)

FIELDS = {
    "greedy": ("greedy", "greedy_ids", "original_greedy", "reasoning"),
    "samples": ("samples", "sample_reasoning"),
    "paraphrased_greedy": ("paraphrased_greedy", "paraphrased_reasoning"),
    "answer": ("answer", "reference"),
    "moments": (),
    "choices": ("choice_logp",),
}
"""What the evidence holds where a need is met, where that is not just the field of that name."""


@pytest.fixture(scope="module")
def options(
    tokenizer: PreTrainedTokenizerFast, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, dict[str, Any]]]:
    """Options without which a metric is absent."""
    folder = tmp_path_factory.mktemp("nli") / "model"
    save_tiny_bert(BertForSequenceClassification, folder, tokenizer, id2label={0: "entailment", 1: "other"})
    judge = Stub()
    judges = {"judges": [{"model": "m", "endpoint": judge.url}]}
    with granted(judges):
        yield {
            "entailment": {"model": str(folder)},
            "gibberish": {"model": str(folder), "label": "other"},
            "judged_naturalness": judges,
            "judged_similarity": judges,
        }
    judge.close()


def hits(*hit: int) -> Item:
    """An item whose answer has these arg-max hits, the end token's last."""
    return Item(ROW, answer=Scored((-1.0,) * len(hit), tuple(map(bool, hit))))


FULL = Item(
    ROW,
    answer=Scored(
        (-0.5, -1.0, -0.25), (True,) * 3, (-1.0, -2.0, -0.5), (0.5, 1.0, 2.0), (9.0, 8.0, 7.0), (-0.5, -1.0, -0.25)
    ),
    paraphrased_answer=scored(0.5, 0.25),
    perturbed_answer=(scored(0.25), scored(0.125)),
    greedy="It was Shakespeare.",
    reasoning="A play, so Shakespeare.",
    choice_logp=(-1.0, -0.5),
    gradient_norms={"1": 3.0, "2": 2.0, "inf": 1.0},
    reference=Item(ROW, answer=scored(0.25, 0.25)),
    greedy_ids=(3, 4, 3, 5),
    original_greedy="Shakespeare wrote it.",
    samples=("Marlowe.", "Shakespeare"),
    paraphrased_greedy="Shakespeare did.",
)


@pytest.mark.parametrize("name", NAMES)
def test_contract(name: str, options: dict[str, dict[str, Any]]) -> None:
    """Defaults build; needs have known names; a row without them has no value; a full row has one; all have a wish."""
    metric(name)
    found = metric(name, **options.get(name, {}))
    assert found.needs
    assert found.needs <= set(get_args(Need))
    with pytest.raises(Absent, match=r"\w"):
        found.value(Item(ROW), "forget")
    for split in ("forget", "retain", "neighbour", "general"):
        assert math.isfinite(found.value(FULL, split))
        assert found.better(split) in ("higher", "lower") or found.opt_in
    assert found.aggregate(np.array([[1.0, 1.0], [1.0, 1.0]])).shape == (2,)
    if found.yes_or_no:
        assert found.value(FULL, "forget") in (0.0, 1.0)
    listed = {item.name: item for item in plugins.listing(FOLDER)}[name]
    assert re.fullmatch(r"[A-Z][^:]+: .*[^?][.?]", listed.summary), listed.summary


@pytest.mark.parametrize("name", NAMES)
def test_only_what_is_declared_is_read(name: str, options: dict[str, dict[str, Any]]) -> None:
    """With nothing but its declared needs, a metric gives the same number: the pass would not provide more."""
    found = metric(name, **options.get(name, {}))
    fields = [field for need in found.needs for field in FIELDS.get(need, (need,))]
    item = Item(ROW, **{field: getattr(FULL, field) for field in fields})
    assert found.value(item, "forget") == found.value(FULL, "forget")


def test_wanted_directions() -> None:
    """Less knowledge of forget rows, more of the others; perplexity the other way round; never repetition."""
    assert [metric("probability").better(split) for split in ("forget", "retain", "general")] == [
        "lower",
        "higher",
        "higher",
    ]
    assert [metric("perplexity").better(split) for split in ("forget", "retain")] == ["higher", "lower"]
    assert [metric("repetition").better(split) for split in ("forget", "retain")] == ["lower", "lower"]
    assert [metric("truth_ratio").better(split) for split in ("forget", "retain")] == ["higher", "higher"]


def test_probability() -> None:
    """Tokens of 0.5 and 0.125: the geometric mean is sqrt(0.0625) = 0.25; rows of 0.25 and 0.75 average to 0.5."""
    assert metric("probability").value(Item(ROW, answer=scored(0.5, 0.125)), "forget") == pytest.approx(0.25)
    assert metric("probability").aggregate(np.array([0.25, 0.75])) == 0.5


def test_perplexity() -> None:
    """1 / 0.25 = 4 for that row; rows of 4 and 16 have mean loss (log 4 + log 16) / 2 = log 8, so 8 and not 10."""
    found = metric("perplexity")
    assert found.value(Item(ROW, answer=scored(0.5, 0.125)), "forget") == pytest.approx(4)
    assert found.aggregate(np.array([4.0, 16.0])) == pytest.approx(8)
    hopeless = Item(ROW, answer=Scored((-1e5,), (False,)))
    assert math.isfinite(found.value(hopeless, "forget"))


def test_exact_memorization() -> None:
    """The end token does not count: hits on 2 of 3 answer tokens are 2/3 whether or not the end is foreseen."""
    found = metric("exact_memorization")
    assert found.value(hits(1, 0, 1, 1), "forget") == pytest.approx(2 / 3)
    assert found.value(hits(1, 0, 1, 0), "forget") == pytest.approx(2 / 3)
    with pytest.raises(Absent):
        found.value(hits(1), "forget")


@pytest.mark.parametrize(
    ("hit", "expected"),
    [
        ((1, 1, 1, 1, 0), 1.0),
        ((0, 1, 1, 1, 0), 0.75),
        ((1, 1, 0, 1, 1), 0.25),
        ((1, 1, 1, 0, 1), 0.0),
        ((0, 0, 0, 0, 1), 0.0),
    ],
)
def test_extraction_strength(hit: tuple[int, ...], expected: float) -> None:
    """N = 4 answer tokens. All hit from k on: k = 0, 1, 3 give 1, 3/4, 1/4; a miss on the last one gives 0."""
    assert metric("extraction_strength").value(hits(*hit), "forget") == expected


def test_truth_ratio() -> None:
    """Wrong answers of 0.25 and 0.0625 each have the geometric mean sqrt(0.25 * 0.0625) = 0.125.

    The paraphrase has sqrt(0.5 * 0.125) = 0.25, so R = 0.5: on forget rows min(0.5, 2) = 0.5, on others 1 - 0.5 = 0.5.
    With a paraphrase of 0.0625, R = 2: on forget rows 1/2 again, on others max(0, 1 - 2) = 0.
    Without a paraphrase the stored answer, of 0.5, counts: R = 0.25.
    """
    found = metric("truth_ratio")
    wrong = (scored(0.25), scored(0.0625, 0.0625))
    answer = scored(0.5)
    knows = Item(ROW, answer=answer, paraphrased_answer=scored(0.5, 0.125), perturbed_answer=wrong)
    errs = Item(ROW, answer=answer, paraphrased_answer=scored(0.0625), perturbed_answer=wrong)
    plain = Item(ROW, answer=answer, perturbed_answer=wrong)
    assert found.value(knows, "forget") == pytest.approx(0.5)
    assert found.value(knows, "retain") == pytest.approx(0.5)
    assert found.value(errs, "forget") == pytest.approx(0.5)
    assert found.value(errs, "retain") == 0
    assert found.value(plain, "forget") == pytest.approx(0.25)
    assert found.value(plain, "general") == pytest.approx(0.75)
    far = Item(ROW, answer=Scored((-2000.0,), (False,)), perturbed_answer=(scored(0.5),))
    assert found.value(far, "forget") == 0
    assert found.value(far, "retain") == 0
    with pytest.raises(Absent, match="perturbed_answer"):
        found.value(Item(ROW, answer=answer), "forget")


@pytest.mark.parametrize(
    ("text", "keyword", "expected"),
    [
        ("It was SHAKESPEARE, of course.", "Shakespeare", True),
        ("Shakespeare's play", "Shakespeare", True),
        ("the Shakespearean stage", "Shakespeare", False),
        ("William\n Shakespeare", "william shakespeare", True),
        ("William Marlowe Shakespeare", "William Shakespeare", False),
        ("In 1601.", "1601", True),
        ("In 16012.", "1601", False),
        ("He lives in Saint-Denis", "Saint Denis", True),
        ("Straße", "STRASSE", True),
        ("", "Shakespeare", False),
        ("She is from the UK.", "U.K.", True),
    ],
)
def test_keywords_are_whole_words(text: str, keyword: str, expected: bool) -> None:
    """Case, punctuation and blanks do not count, borders of words do."""
    assert holds_any(text, ["Marlowe's", keyword], "word") is expected
    row = Example("r", "Q", "A", keywords=(keyword,))
    item = Item(row, greedy=text, paraphrased_greedy=text, samples=("nothing", text), match="word")
    for name in ("keyword_recall", "paraphrase_keyword_recall", "sample_leak"):
        assert metric(name).value(item, "forget") == expected


def test_each_keyword_metric_reads_its_own_text() -> None:
    item = Item(ROW, greedy="Marlowe", paraphrased_greedy="Shakespeare", samples=("Marlowe", "Kyd"))
    values = {name: metric(name).value(item, "forget") for name in NAMES if "keyword" in name or name == "sample_leak"}
    assert values == {"keyword_recall": 0.0, "paraphrase_keyword_recall": 1.0, "sample_leak": 0.0}
    for name in values:
        with pytest.raises(Absent, match="keywords"):
            metric(name).value(
                Item(Example("r", "Q", "A"), greedy="x", paraphrased_greedy="x", samples=("x",)), "forget"
            )


def test_no_sample_is_not_no_leak() -> None:
    with pytest.raises(Absent, match="probe_splits"):
        metric("sample_leak").value(Item(ROW, greedy="Shakespeare"), "retain")


@pytest.mark.parametrize(
    ("answer", "greedy", "expected"),
    [
        ("the cat sat on the mat", "the cat on a mat", 4 / 6),
        ("Paris", "It is paris!", 1.0),
        ("she writes novels", "novels she wrote", 1 / 3),
        ("she writes novels", "", 0.0),
    ],
)
def test_rouge_l_recall(answer: str, greedy: str, expected: float) -> None:
    """the, cat, on, mat of 6 words are in order: 4/6; with another order only one word of three."""
    item = Item(Example("r", "Q", answer), greedy=greedy)
    value = metric("rouge_l_recall").value(item, "forget")
    assert value == pytest.approx(expected)
    assert value == RougeScorer(["rougeL"], use_stemmer=True).score(answer, greedy)["rougeL"].recall


def test_rouge_of_a_document_is_that_of_its_continuation() -> None:
    item = Item(Example("r", text="one two three four"), greedy="three", continuation="three four")
    assert metric("rouge_l_recall").value(item, "forget") == 0.5


@pytest.mark.parametrize(
    ("ids", "expected"),
    [((1, 2, 3), 1.0), ((7, 7, 7, 7), 0.0), ((7,), 0.0), ((), 0.0), ((1, 2) * 4, 1 / 3), ((1, 1, 2, 3), 0.75)],
)
def test_token_entropy(ids: tuple[int, ...], expected: float) -> None:
    """abababab: 1 bit of log2 8 = 3. aabc: shares 1/2, 1/4, 1/4 have 1/2 + 1/2 + 1/2 = 1.5 of log2 4 = 2 bits."""
    found = metric("token_entropy")
    assert found.value(Item(ROW, greedy="x", greedy_ids=ids), "forget") == pytest.approx(expected)
    assert found.value(Item(ROW, greedy="x", greedy_ids=ids[::-1]), "retain") == pytest.approx(expected)
    assert found.better("forget") == found.better("retain") == "higher"


def test_normalised_probability() -> None:
    """Right 0.5, wrong 0.25 and 0.125: 0.5 / 0.875 = 4/7. Hopeless against a sure wrong answer: 0."""
    found = metric("normalised_probability")
    row = Item(ROW, answer=scored(0.5, 0.5), perturbed_answer=(scored(0.25), scored(0.125)))
    assert found.value(row, "general") == pytest.approx(4 / 7)
    hopeless = Item(ROW, answer=Scored((-2000.0,), (False,)), perturbed_answer=(scored(0.5),))
    assert found.value(hopeless, "general") == pytest.approx(0, abs=1e-300)


@pytest.mark.parametrize(
    ("text", "expected"),
    [("a b c d e", 0.0), ("a a a a a", 2 / 3), ("a b c a b c A b", 3 / 6), ("a b", 0.0), ("", 0.0)],
)
def test_repetition(text: str, expected: float) -> None:
    """5 words have 3 triples; of a a a a a one is distinct: 1 - 1/3. abc bca cab abc bca cab: 3 of 6."""
    assert metric("repetition").value(Item(ROW, greedy=text), "forget") == pytest.approx(expected)
    assert metric("repetition", n=1).value(Item(ROW, greedy="a b a b"), "forget") == 0.5
