"""Language models as judges: the form of a reply, a stub endpoint that misbehaves, a local model, agreement."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from scipy.stats import pearsonr, spearmanr
from stub_judge import Stub

from expunge.core.errors import UserError
from expunge.core.permission import granted
from expunge.data.example import Example
from expunge.evaluate.base import Absent, Item, Metric
from expunge.evaluate.config import EvaluateConfig
from expunge.evaluate.llm_judge import JudgeConfig, LLMJudge, parse
from expunge.evaluate.panel import agreement
from expunge.evaluate.score import item_values, load_metrics, score

KEY = "sk-secret-of-the-test"


@pytest.fixture(autouse=True)
def _allowed() -> Iterator[None]:
    """This machine may receive rows, as with `--allow-endpoint 127.0.0.1`."""
    with granted(endpoints=["127.0.0.1"]):
        yield


@pytest.fixture
def stub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Stub]:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    one = Stub()
    yield one
    one.close()


def rater(stub: Stub, **options: Any) -> LLMJudge:
    return LLMJudge(JudgeConfig(model="m", endpoint=stub.url, pause=0.0, **options), "judges.0")


def build(name: str, **options: Any) -> Metric:
    (found,) = load_metrics(EvaluateConfig(metrics=(name,), options={name: options})).values()
    return found


def said(greedy: str, original: str | None = None, answer: str = "A") -> Item:
    return Item(Example("r", "Who wrote it?", answer), greedy=greedy, original_greedy=original)


@pytest.mark.parametrize(
    ("reply", "score"),
    [
        ('{"score": 3.2500}', 3.25),
        (' {"score": 0}\n', 0.0),
        ('{"score": 5}', 5.0),
        ('{"score": 5.0001}', None),
        ('{"score": -1}', None),
        ('{"score": "3"}', None),
        ('{"score": true}', None),
        ('{"score": NaN}', None),
        ('{"score": 3, "why": "good"}', None),
        ('{"score": 3, "score": 4}', None),
        ('```json\n{"score": 3}\n```', None),
        ('The score is {"score": 3}', None),
        ("[3]", None),
        ("3", None),
        ("", None),
    ],
)
def test_a_reply_is_one_object_with_one_number(reply: str, score: float | None) -> None:
    assert parse(reply) == score


def test_what_is_sent(stub: Stub) -> None:
    assert rater(stub).rate(["Rate this."]) == [3.0]
    (body,) = stub.bodies
    assert stub.paths == ["/v1/chat/completions"]
    assert (body["model"], body["temperature"]) == ("m", 0)
    assert body["messages"] == [{"role": "user", "content": "Rate this."}]
    assert stub.headers[0]["Authorization"] == f"Bearer {KEY}"


def test_without_a_key_none_is_sent(stub: Stub) -> None:
    assert rater(stub, key_variable="UNSET_KEY_OF_THE_TEST").rate(["a"]) == [3.0]
    assert "Authorization" not in stub.headers[0]


def test_another_form_is_asked_for_again_and_never_guessed_at(stub: Stub) -> None:
    """The first reply to b is prose, the second an object; c never gives one."""

    def answer(prompt: str, number: int) -> tuple[int, str]:
        if prompt.startswith("a") or (prompt.startswith("b") and "not of the form" in prompt):
            return 200, '{"score": 4}'
        return 200, "Four out of five"

    stub.answer = answer
    assert rater(stub, parallel=1).rate(["a", "b", "c"]) == [
        4.0,
        4.0,
        f"m at {stub.url[7:-3]} gave no score in 3 attempts",
    ]
    assert len(stub.bodies) == 3 + 2 + 1


def test_a_busy_endpoint_is_asked_again(stub: Stub) -> None:
    stub.answer = lambda prompt, number: (429 if number < 3 else 200, '{"score": 1}')
    assert rater(stub).rate(["a"]) == [1.0]


@pytest.mark.parametrize(("after", "slept"), [(None, [0.25, 0.5]), ("3", [3, 3]), ("100000", [60, 60])])
def test_the_wait_before_a_repetition(
    stub: Stub, monkeypatch: pytest.MonkeyPatch, after: str | None, slept: list[float]
) -> None:
    """The pause and its double, or what the endpoint asks for, but no more than a minute."""
    waits: list[float] = []
    monkeypatch.setattr("urllib3.util.retry.time.sleep", waits.append)
    stub.answer = lambda prompt, number: (429, "")
    stub.retry_after = after
    LLMJudge(JudgeConfig(model="m", endpoint=stub.url, pause=0.25), "o").rate(["a"])
    assert waits == slept


def test_no_other_credentials_and_no_proxy(stub: Stub, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A netrc file and a proxy that nobody answers at: neither is used."""
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login me password secret", encoding="utf-8")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    assert rater(stub, key_variable="UNSET_KEY_OF_THE_TEST").rate(["a"]) == [3.0]
    assert "Authorization" not in stub.headers[0]
    monkeypatch.setattr("expunge.evaluate.llm_judge._is_local", lambda host: False)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    assert rater(stub, key_variable="UNSET_KEY_OF_THE_TEST").rate(["a"]) == [3.0]
    assert "Authorization" not in stub.headers[1]


@pytest.mark.parametrize(
    ("status", "content", "reason", "requests"),
    [
        (401, f"wrong key {KEY}", "status 401", 1),
        (302, "", "status 302", 1),
        (503, "", "status 503", 3),
        (-1, "<html>", "not answer as an OpenAI-compatible endpoint does", 1),
        (-1, '{"choices": []}', "not answer as an OpenAI-compatible endpoint does", 1),
    ],
)
def test_an_endpoint_that_does_not_answer_leaves_a_reason(
    stub: Stub, status: int, content: str, reason: str, requests: int
) -> None:
    stub.answer = lambda prompt, number: (status, content)
    (found,) = rater(stub).rate(["a private text"])
    assert isinstance(found, str)
    assert reason in found
    assert KEY not in found
    assert "private" not in found
    assert len(stub.bodies) == requests


def test_nobody_listens() -> None:
    found = LLMJudge(JudgeConfig(model="m", endpoint="http://127.0.0.1:9/v1", attempts=1), "o").rate(["a"])
    assert found == ["m at 127.0.0.1:9 did not answer: ConnectionRefusedError"]


@pytest.mark.parametrize(
    ("endpoint", "message"),
    [
        ("host/v1", "expected a base URL such as https://host/v1"),
        ("ftp://host/v1", "expected a base URL"),
        ("https://host/v1?key=a", "expected a base URL"),
        ("https://host:port/v1", "expected a base URL"),
        ("https://me:secret@host/v1", "holds a user or password"),
        ("http://host/v1", "sent over https, or to this machine, only"),
    ],
)
def test_addresses_that_are_refused(endpoint: str, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    with pytest.raises(UserError, match=message) as refused:
        build("judged_naturalness", judges=[{"model": "m", "endpoint": endpoint}])
    assert str(refused.value).startswith("evaluate.options.judged_naturalness.judges.0.endpoint: ")
    assert "secret" not in str(refused.value)
    assert KEY not in str(refused.value)


def test_similarity_is_told_as_success(stub: Stub) -> None:
    """Raw 1.5: success 3.5 on forget rows, where the meaning shall differ, and 1.5 on others, where it shall stay."""
    stub.answer = lambda prompt, number: (200, '{"score": 1.5}')
    metric = build("judged_similarity", judges=[{"model": "m", "endpoint": stub.url}])
    item = said("new words", "old words")
    assert metric.value(item, "forget") == 3.5
    assert metric.value(item, "retain") == 1.5
    assert (metric.better("forget"), metric.better("retain")) == ("higher", "higher")
    (body,) = stub.bodies
    sent = body["messages"][0]["content"]
    assert all(text in sent for text in ("Who wrote it?", "new words", "old words"))
    assert sent.index("old words") < sent.index("new words")


def test_similarity_with_the_stored_answer(stub: Stub) -> None:
    judges = [{"model": "m", "endpoint": stub.url}]
    with pytest.raises(Absent, match=r"original model.*reference = \"stored\""):
        build("judged_similarity", judges=judges).value(said("x"), "forget")
    assert build("judged_similarity", judges=judges, reference="stored").value(said("x", answer="y"), "forget") == 2.0
    assert "\ny\n" in stub.bodies[0]["messages"][0]["content"]


def test_texts_with_braces_and_dollars_reach_the_judge_as_they_are(stub: Stub) -> None:
    build("judged_naturalness", judges=[{"model": "m", "endpoint": stub.url}]).value(said("$question {x} $$"), "forget")
    assert "$question {x} $$" in stub.bodies[0]["messages"][0]["content"]


def test_two_judges_their_mean_and_their_agreement(stub: Stub) -> None:
    """First 1, 2, 3, second 2, 2, 5 for three answers: means 1.5, 2, 4; mean difference (1 + 0 + 2) / 3 = 1."""
    numbers = {"first": {"a.": 1, "b.": 2, "c.": 3}, "second": {"a.": 2, "b.": 2, "c.": 5}}

    def answer(prompt: str, number: int) -> tuple[int, str]:
        text = next(text for text in ("a.", "b.", "c.") if f"\n{text}\n" in prompt)
        model = stub.bodies[-1]["model"]
        return 200, json.dumps({"score": numbers[model][text]})

    stub.answer = answer
    judges = [{"model": name, "endpoint": stub.url, "parallel": 1} for name in ("first", "second")]
    metrics = {"judged_naturalness": build("judged_naturalness", judges=judges)}
    evidence = {"forget": [said("a."), said("b."), said("c."), said("")]}
    values = item_values(evidence, metrics)
    assert values["forget"]["judged_naturalness"] == [1.5, 2.0, 4.0, "the model said nothing"]
    found = score(values, metrics, 0)["forget"]["judged_naturalness"]
    host = stub.url[7:-3]
    assert (found.value, found.n) == (2.5, 3)
    assert found.reference == (
        f"judged by first at {host}, second at {host}; agreement of first at {host} and second at {host}: "
        f"Pearson {pearsonr([1, 2, 3], [2, 2, 5]).statistic:.2f}, "
        f"Spearman {spearmanr([1, 2, 3], [2, 2, 5]).statistic:.2f}, mean absolute difference 1.00, n=3"
    )
    assert KEY not in found.model_dump_json()
    assert len(stub.bodies) == 6


def test_agreement_without_variety_has_no_correlation() -> None:
    assert agreement([3.0, 3.0], [1.0, 2.0]) == "mean absolute difference 1.50, n=2"


def test_one_judge_without_a_number_leaves_the_row_absent(stub: Stub) -> None:
    stub.answer = lambda prompt, number: (200, "no" if stub.bodies[-1]["model"] == "second" else '{"score": 2}')
    judges = [{"model": name, "endpoint": stub.url, "attempts": 1} for name in ("first", "second")]
    with pytest.raises(Absent, match=r"second at .* gave no score in 1 attempts"):
        build("judged_naturalness", judges=judges).value(said("a"), "forget")


def test_nobody_named() -> None:
    metric = build("judged_naturalness")
    metric.prepare({"forget": [said("a")]})
    with pytest.raises(Absent, match=r"there is no judge: set evaluate\.options\.judged_naturalness\.judges"):
        metric.value(said("a"), "forget")
    assert metric.reference is None


def test_they_wait_to_be_named() -> None:
    assert not {"judged_naturalness", "judged_similarity"} & set(load_metrics(EvaluateConfig()))


def test_a_local_model_judges_too(tiny_folder: Path) -> None:
    """The tiny model knows authors and nothing of ratings: it replies, twice, and is not believed."""
    found = LLMJudge(JudgeConfig(model=str(tiny_folder), max_tokens=8, attempts=2), "judges.0").rate(
        ["Rate it.", "Who?"]
    )
    assert found == [f"{tiny_folder} gave no score in 2 attempts"] * 2


def test_a_local_judge_that_replies_as_asked(tiny_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one = LLMJudge(JudgeConfig(model=str(tiny_folder), max_tokens=8), "judges.0")
    encoder = one._local.encoder
    monkeypatch.setattr(encoder, "decode", lambda ids: '{"score": 2.5}')
    assert one.rate(["Rate it."]) == [2.5]


def test_a_judge_whose_context_is_too_short_is_named(tiny_folder: Path) -> None:
    judge = LLMJudge(JudgeConfig(model=str(tiny_folder)), "judges.0")
    with pytest.raises(UserError, match=r"^judges\.0\.model: .* exceeds the 512 tokens that the judge"):
        judge.rate(["Rate it. " * 200])


def test_an_unknown_local_model_is_refused_at_once() -> None:
    with pytest.raises(UserError, match=r"judges\.0\.model: no model 'smolm'"):
        build("judged_naturalness", judges=[{"model": "smolm"}])


@pytest.mark.parametrize("is_first", [True, False])
def test_of_several_processes_one_asks_an_endpoint(stub: Stub, monkeypatch: pytest.MonkeyPatch, is_first: bool) -> None:
    """The others get its numbers; all would pay otherwise."""
    state = SimpleNamespace(num_processes=2, is_main_process=is_first)
    monkeypatch.setattr("expunge.evaluate.panel.PartialState", lambda: state)

    def broadcast(values: list[Any]) -> list[Any]:
        values[:] = [value or [3.0] for value in values]
        return values

    monkeypatch.setattr("expunge.evaluate.panel.broadcast_object_list", broadcast)
    metric = build("judged_naturalness", judges=[{"model": "m", "endpoint": stub.url}])
    assert metric.value(said("Plum Orva."), "forget") == 3.0
    assert len(stub.bodies) == int(is_first)


def test_a_reply_without_an_end_is_no_score(stub: Stub) -> None:
    stub.answer = lambda prompt, number: (200, "[" * 100_000)
    (found,) = rater(stub, attempts=1).rate(["a"])
    assert "gave no score" in str(found)
