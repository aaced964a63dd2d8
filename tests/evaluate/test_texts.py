"""Metrics of what was generated: ROUGE variants, fluency, gibberish."""

from __future__ import annotations

import math
from collections import Counter
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import torch
from rouge_score.rouge_scorer import RougeScorer
from scipy.stats import entropy
from tiny_bert import save_tiny_bert
from tokenizers.processors import TemplateProcessing
from transformers import BertForSequenceClassification, PreTrainedTokenizerFast
from worked import metric

from expunge.core.errors import UserError
from expunge.data.encode import Encoder
from expunge.data.example import Example
from expunge.evaluate.base import Absent, Item
from expunge.evaluate.config import EvaluateConfig
from expunge.evaluate.evidence import collect
from expunge.evaluate.metrics.fluency import tokenise
from expunge.models.base import LanguageModel


def said(greedy: str, answer: str = "A", **fields: Any) -> Item:
    return Item(Example("r", "Q", answer), greedy=greedy, **fields)


def test_rouge_variants() -> None:
    """Stored `she wrote novels`, said `novels she writes well`.

    One word: all three stems are there, 3/3; without the stemmer `wrote`/`writes` differ either way: the Porter stem of
    `wrote` is `wrote`, so 2/3. In order, `she` alone or `novels` alone: recall 1/3, precision 1/4, F1 2/7.
    """
    item = said("novels she writes well", "she wrote novels")
    assert metric("rouge_1_recall").value(item, "forget") == pytest.approx(2 / 3)
    assert metric("rouge_l_recall").value(item, "forget") == pytest.approx(1 / 3)
    assert metric("rouge_l_f1").value(item, "forget") == pytest.approx(2 / 7)


@pytest.mark.parametrize("stemmer", [True, False])
def test_stemmer(stemmer: bool) -> None:
    """`novels` and `novel` have one stem: 3 of 3 words with it, 2 of 3 without, as Google's scorer says itself."""
    item = said("she writes novel", "she writes novels")
    scorer = RougeScorer(["rouge1", "rougeL"], use_stemmer=stemmer).score("she writes novels", "she writes novel")
    expected = 1 if stemmer else 2 / 3
    for name, value in (
        ("rouge_1_recall", scorer["rouge1"].recall),
        ("rouge_l_recall", scorer["rougeL"].recall),
        ("rouge_l_f1", scorer["rougeL"].fmeasure),
    ):
        assert metric(name, stemmer=stemmer).value(item, "forget") == pytest.approx(expected) == value


def _with_start_token(tokenizer: Any) -> Any:
    """The same tokenizer, which now writes its end token in front of every text."""
    found = deepcopy(tokenizer)
    token, number = found.eos_token, found.eos_token_id
    found._tokenizer.post_processor = TemplateProcessing(single=f"{token} $A", special_tokens=[(token, number)])
    return found


@pytest.mark.parametrize(
    ("stored", "said_", "recall"),
    [
        ("她出生在青州。", "她出生在青州。", 1.0),
        ("她出生在青州。", "青州", 1 / 3),
        ("Она живёт в Торжке.", "Она живет в Торжке.", 1.0),
        ("वह कानपुर में रहती है", "वह कानपुर में रहती है", 1.0),
        ("เธอเกิดที่เชียงใหม่", "เธอเกิดที่เชียงใหม่", 1.0),
        ("Müller", "Möller", 0.0),
        ("Она живёт в Торжке.", "Он варит кофе.", 0.0),
        ("1,234,567 shares", "1234567 shares", 1.0),
    ],
)
def test_rouge_of_every_script(stored: str, said_: str, recall: float) -> None:
    """Two of six characters: 1/3."""
    assert metric("rouge_l_recall").value(said(said_, stored), "forget") == pytest.approx(recall)


def test_rouge_of_a_text_without_a_word_is_absent() -> None:
    with pytest.raises(Absent, match="without a word"):
        metric("rouge_l_recall").value(said("?", "!?"), "forget")


def test_what_is_compared_with_can_be_cut_to_tokens(tiny: LanguageModel) -> None:
    """Only the first tokens of the stored text count: of an answer, and of what follows a document's prompt."""
    question = Example("q", "Who?", "Jonas Halden wrote many novels by the sea.")
    document = Example("d", text="Jonas Halden wrote many novels by the sea, and never left it again in his life.")
    rows = {"forget": [question, document]}
    whole = collect(tiny, rows, frozenset({"greedy"}), EvaluateConfig(max_new_tokens=2), 0)["forget"]
    cut = collect(tiny, rows, frozenset({"greedy"}), EvaluateConfig(max_new_tokens=2, reference_tokens=3), 0)["forget"]
    assert [item.stored for item in whole] == [None, None]
    for item, text in zip(cut, (question.answer, whole[1].continuation), strict=True):
        assert text is not None
        assert item.stored is not None
        assert text.startswith(item.stored)
        assert len(tiny.tokenizer(item.stored)["input_ids"]) == 3
    with_start = Encoder(_with_start_token(tiny.tokenizer), "plain")
    assert with_start.first_tokens("one two three", 3) == tiny.encoder.first_tokens("one two three", 2)
    longer = EvaluateConfig(max_new_tokens=2, reference_tokens=500)
    assert collect(tiny, rows, frozenset({"greedy"}), longer, 0)["forget"][0].stored == question.answer
    item = said("one two", "one two three four", stored="one two")
    assert metric("rouge_l_f1").value(item, "forget") == 1


def test_fluency_by_hand() -> None:
    """a b a b: pairs ab, ba, ab have shares 2/3, 1/3, so H2 = log2 3 - 2/3; triples aba, bab: H3 = 1."""
    expected = (2 / 3 * (math.log2(3) - 2 / 3) + 4 / 3) / 2
    assert metric("fluency").value(said("a b a b"), "forget") == pytest.approx(expected)
    assert metric("fluency").better("forget") == metric("fluency").better("retain") == "higher"


@pytest.mark.parametrize(
    "text", ["He wrote it. He wrote it, she said. Didn't he?", "a a a a a a", "one two three", 'He said "no" twice.']
)
def test_fluency_against_scipy(text: str) -> None:
    """Entropies of the n-gram counts by scipy, in bits; a text that repeats one word has none."""
    words = tokenise(text)
    two, three = (Counter(zip(*(words[start:] for start in range(n)), strict=False)) for n in (2, 3))
    expected = (2 / 3 * entropy([*two.values()], base=2) + 4 / 3 * entropy([*three.values()], base=2)) / 2
    assert metric("fluency").value(said(text), "forget") == pytest.approx(float(expected), abs=1e-12)


def test_words_of_fluency() -> None:
    """Marks and clitics are words of their own, as in the Penn Treebank, at the end of each sentence too."""
    assert tokenise("He didn't. She did!") == ["He", "did", "n't", ".", "She", "did", "!"]


@pytest.mark.parametrize("text", ["", "two words"])
def test_a_text_without_word_triples_has_no_fluency(text: str) -> None:
    with pytest.raises(Absent, match="fewer than three words"):
        metric("fluency").value(said(text), "forget")


def gibberish_model(folder: Path, tokenizer: PreTrainedTokenizerFast, *labels: str) -> dict[str, Any]:
    """A classifier that gives place 1 of three the probability 1/2 whatever it reads, and the others 1/4."""
    save_tiny_bert(BertForSequenceClassification, folder, tokenizer, id2label=dict(enumerate(labels)))
    model: Any = BertForSequenceClassification.from_pretrained(folder)
    model.classifier.weight.data.zero_()
    model.classifier.bias.data = torch.tensor([0.0, math.log(2), 0.0])
    model.save_pretrained(folder)
    return {"model": str(folder)}


def test_gibberish_finds_the_clean_label_by_its_name(tokenizer: PreTrainedTokenizerFast, tmp_path: Path) -> None:
    """Probabilities 1/4, 1/2, 1/4: the label's place decides, not the first place."""
    for name, labels, expected in (
        ("first", ("clean", "noise", "mild"), 0.25),
        ("second", ("noise", "CLEAN", "mild"), 0.5),
    ):
        options = gibberish_model(tmp_path / name, tokenizer, *labels)
        found = metric("gibberish", **options)
        assert found.value(said("Some text."), "forget") == pytest.approx(expected)
        assert found.reference == f"by {options['model']}"
        assert found.better("forget") == found.better("retain") == "higher"
    other = metric("gibberish", **options, label="Noise")
    assert other.value(said("Some text."), "forget") == pytest.approx(0.25)
    with pytest.raises(Absent, match="empty"):
        other.value(said(""), "forget")
    with pytest.raises(UserError, match=r"gibberish\.model: .* has no label 'good'; its labels: noise, CLEAN, mild"):
        metric("gibberish", **options, label="good")


def test_gibberish_by_the_classifier_itself(tokenizer: PreTrainedTokenizerFast, tmp_path: Path) -> None:
    """A pass in one batch gives what the model says of each text alone, and of a long one's first tokens only."""
    save_tiny_bert(BertForSequenceClassification, tmp_path, tokenizer, id2label={0: "noise", 1: "clean"})
    model: Any = BertForSequenceClassification.from_pretrained(tmp_path).eval()
    texts = ["Who?", "Jonas Halden wrote novels by the sea. " * 4]
    items = [said(text) for text in texts]
    found = metric("gibberish", model=str(tmp_path), tokens=8)
    found.prepare({"forget": items})
    for item, text in zip(items, texts, strict=True):
        with torch.no_grad():
            inputs = tokenizer(text, return_tensors="pt", truncation=True, max_length=8)
            alone = model(**inputs).logits.softmax(-1)[0, 1].item()
        assert found.value(item, "forget") == pytest.approx(alone, abs=1e-5)


def test_without_a_classifier_gibberish_is_absent() -> None:
    """The default is on the hub, which no test reaches."""
    with pytest.raises(Absent, match="no gibberish classifier: cannot load 'madhurjindal"):
        metric("gibberish").value(said("Some text."), "forget")
