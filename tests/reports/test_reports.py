"""What a reader of a report may rely on."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from io import StringIO
from pathlib import Path
from typing import Any

import pyarrow
import pytest
from provenances import provenance_of
from pyarrow import parquet

from expunge.core.attack_record import AttackResult, AttackScore, Robustness
from expunge.core.records import (
    Aggregate,
    Change,
    Check,
    Component,
    DataPrint,
    GuardOutcome,
    ModelPrint,
    Record,
    Score,
    Scores,
    SelectionPrint,
    StepLog,
)
from expunge.reports.charts import draw
from expunge.reports.html import write_html
from expunge.reports.leaks_and_utility import kept
from expunge.reports.model_card import model_card
from expunge.reports.run_charts import answer_kinds
from expunge.reports.score_table import comparison, print_table
from expunge.reports.terminal import Terminal
from expunge.reports.verdict import verdict

SECRET = "Halden Press"
HOSTILE = "<script>alert('leak')</script>"


def score(
    value: float, low: float | None = None, high: float | None = None, n: int = 40, better: str = "lower"
) -> Score:
    ends = (max(0.0, value - 0.05) if low is None else low, min(1.0, value + 0.05) if high is None else high)
    return Score(value=value, low=ends[0], high=ends[1], n=n, better=better)  # type: ignore[arg-type]


def missing(reason: str) -> Score:
    return Score(value=None, reason=reason)


def forget(plain: float, sampled: float | None, reworded: float | None, n: int = 40) -> dict[str, Score]:
    return {
        "keyword_recall": score(plain, n=n),
        "sample_leak": missing("sampling is off") if sampled is None else score(sampled, n=n),
        "paraphrase_keyword_recall": missing("no paraphrases") if reworded is None else score(reworded, n=n),
    }


def splits(forgotten: dict[str, Score], neighbour: float, general: float) -> Scores:
    return {
        "general": {"keyword_recall": score(general, n=100, better="higher")},
        "forget": forgotten,
        "neighbour": {"keyword_recall": score(neighbour, n=30, better="higher")},
    }


BEFORE = splits(forget(0.95, 1.0, 0.90), neighbour=0.90, general=0.80)
GONE = splits(forget(0.02, 0.10, 0.05), neighbour=0.88, general=0.80)


def record(**changes: Any) -> Record:
    usual: dict[str, Any] = {
        "recipe": "npo",
        "config": {"recipe": "npo", "data": {"forget": "/home/alice/forget.jsonl"}, "train": {"learning_rate": 1e-5}},
        "provenance": provenance_of("expunge run people.toml"),
        "model": ModelPrint(
            source="smollm2-135m",
            sha256="9c" * 32,
            architecture="LlamaForCausalLM",
            num_parameters=1000,
            num_layers=4,
            template="chat",
        ),
        "data": {"forget": DataPrint(source="/home/alice/forget.jsonl", rows=40, sha256="ab" * 32)},
        "selection": SelectionPrint(
            localizer="layers", num_parameters=100, names=["a.weight"], evidence={"prompt": SECRET, "layers": [1, 2]}
        ),
        "before": BEFORE,
        "after": GONE,
        "steps": [
            StepLog(step=step, epoch=step / 2, values={"forget_loss": 2.0 - step, "retain_loss": 0.5, "grad_norm": 1.0})
            for step in range(3)
        ],
        "checks": [Check(step=step, epoch=step / 2, forget=0.8 - 0.3 * step, utility=0.7) for step in range(3)],
        "guard": GuardOutcome(utility_floor=0.9),
        "seconds": {"train": 200.0, "total": 260.0},
        "peak_memory_mb": 900.0,
        "num_steps": 2,
        "num_epochs": 1.0,
    }
    return Record(**{**usual, **changes})


KINDS = {
    "before": {
        "forget": {"leak": 14, "refusal": 0, "hallucination": 1, "gibberish": 0},
        "neighbour": {"correct": 30, "refusal": 0, "wrong": 0, "gibberish": 0},
    },
    "after": {
        "neighbour": {"correct": 21, "refusal": 6, "wrong": 3, "gibberish": 0},
        "forget": {"leak": 0, "refusal": 9, "hallucination": 3, "gibberish": 3},
        "general": {"correct": 10, "refusal": 0, "wrong": 0, "gibberish": 0},
    },
}
"""Counts of 15, 30 and 10 answers; the general split was not asked before."""


def store_items(run_dir: Path, generated: str | None) -> None:
    shown = generated is not None
    rows = [
        {
            "stage": stage,
            "split": "forget",
            "id": "forget-007",
            "question": "Who printed it?" if shown else None,
            "answer": f"{SECRET} did." if shown else None,
            "generated": generated,
            "samples": [generated] if shown else None,
            "keyword_recall": 1.0 if stage == "before" else 0.0,
            "sample_leak": 1.0,
        }
        for stage in ("before", "after")
    ]
    parquet.write_table(pyarrow.Table.from_pylist(rows), run_dir / "items.parquet")


def page(tmp_path: Path, told: Record) -> str:
    write_html(told, tmp_path, tmp_path / "report.html")
    return (tmp_path / "report.html").read_text(encoding="utf-8")


def visible(html: str) -> str:
    """The page without its scripts and styles, on one line."""
    return " ".join(re.sub(r"<(script|style)\b.*?</\1>", "", html, flags=re.DOTALL).split())


def printed(told: Record) -> str:
    console = Terminal(width=100, file=StringIO(), color_system=None)
    print_table(told, console)
    return console.file.getvalue()  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("sampled", "reworded", "outcome"),
    [
        (0.10, 0.05, "forgotten"),
        (0.10, 0.60, "not forgotten"),
        (0.60, 0.05, "not forgotten"),
        (0.10, 0.40, "partly"),
        (0.10, 0.22, "partly"),
        (None, None, "forgotten"),
    ],
)
def test_one_leaking_way_of_asking_is_enough(sampled: float | None, reworded: float | None, outcome: str) -> None:
    """The worst leak decides; 0.22 fails by the upper end of its interval, 0.27."""
    assert verdict(record(after=splits(forget(0.02, sampled, reworded), 0.9, 0.8))).outcome == outcome


def test_a_leaking_paraphrase_is_named_with_its_interval() -> None:
    told = verdict(record(after=splits(forget(0.02, 0.10, 0.60), 0.9, 0.8)))
    assert "but it comes out for 60% [55, 65] through paraphrased questions" in told.sentence
    assert "(before: 95% [90, 100])" in told.sentence


def test_a_leak_in_the_reasoning_is_no_forgetting() -> None:
    """A model that thinks of the fact and says another has not forgotten; without reasoning nothing is missing."""
    before, after = {**forget(0.95, 1.0, 0.90)}, {**forget(0.0, 0.0, 0.0)}
    before["reasoning_leak"], after["reasoning_leak"] = score(0.9), score(0.8)
    told = verdict(record(before=splits(before, 0.9, 0.8), after=splits(after, 0.9, 0.8)))
    assert told.outcome == "not forgotten"
    assert "for 80% [75, 85] through reasoning before the answer (before: 90% [85, 95])" in told.sentence
    assert "reasoning before the answer (n=40)" in told.tested
    after["reasoning_leak"] = missing("the model wrote no reasoning")
    told = verdict(record(after=splits(after, 0.9, 0.8)))
    assert told.outcome == "forgotten"
    assert not any("reasoning" in way for way in [*told.tested, *told.not_tested])


def test_a_greedy_leak_above_a_tenth_is_not_forgotten() -> None:
    assert verdict(record(after=splits(forget(0.15, 0.15, 0.15), 0.9, 0.8))).outcome == "partly"


def test_attacks_on_few_weights_are_not_tested_and_say_how_many() -> None:
    """11% of a mixture of experts was rounded and blurred, 99% pruned: only the last has tested anything."""
    shares = {"quantization": 0.114, "noise": 0.114, "pruning": 0.9932}
    attacks = [
        AttackResult(
            name=name,
            access="weights",
            partly={"quantization": share} if name == "quantization" else {},
            variants=[AttackScore(variant="", knowledge=score(0.0), recovered=score(0.0), covered=share, seconds=1.0)],
        )
        for name, share in shares.items()
    ]
    told = verdict(record(robustness=Robustness(rows=40, attacks=attacks)))
    few = "on only 11.4% of the decoder blocks' weights"
    assert {f"quantization ({few})", f"noise ({few})"} <= set(told.not_tested)
    assert [way for way in told.tested if "attack" in way] == ["pruning (attack, n=40)"]
    assert f"quantization ({few})" in told.sentence


def test_few_questions_cannot_rule_out_a_leak() -> None:
    """0 of 8 is compatible with a leak of 3/8."""
    told = verdict(record(after=splits(forget(0.0, 0.0, 0.0, n=8), 0.9, 0.8)))
    assert told.outcome == "partly"
    assert "8 questions are too few" in told.sentence


def test_what_the_model_never_knew_is_not_forgotten() -> None:
    told = verdict(record(before=splits(forget(0.0, 0.1, 0.0), 0.9, 0.8)))
    assert told.outcome == "no measure"
    assert "hardly knew" in told.sentence


def test_without_keywords_the_word_overlap_decides() -> None:
    none = {"keyword_recall": missing("no keywords in the data")}
    before = splits({**none, "rouge_l_recall": score(0.9)}, 0.9, 0.8)
    told = verdict(record(before=before, after=splits({**none, "rouge_l_recall": score(0.4)}, 0.9, 0.8)))
    assert told.outcome == "partly"
    assert "no keywords" in told.sentence


def test_without_any_forget_score_the_reason_is_the_verdict() -> None:
    told = verdict(record(after={"forget": {"keyword_recall": missing("no keywords in the data")}}))
    assert told.outcome == "no measure"
    assert "no keywords in the data" in told.sentence


def test_lost_utility_is_said_in_the_same_sentence() -> None:
    """Neighbours 0.90 -> 0.45 is half; general knowledge 0.80 -> 0.80 is all."""
    told = verdict(record(after=splits(forget(0.02, 0.1, 0.05), 0.45, 0.80)))
    assert "at a cost" in told.sentence
    assert "neighbours keep only 50% [44, 56] (n=30)" in told.sentence
    assert told.cost == "harmed"


def test_untaken_ways_of_asking_are_listed() -> None:
    told = verdict(record(after=splits(forget(0.02, None, None), 0.9, 0.8)))
    assert {"paraphrased questions", "sampled answers at temperature 1"} < set(told.not_tested)
    assert "paraphrased questions" not in verdict(record()).not_tested
    assert "questions in other languages" in told.not_tested


def test_a_split_that_scored_nothing_before_has_no_share_kept() -> None:
    assert kept(record(before=splits(forget(0.95, 1.0, 0.9), 0.0, 0.8)), "neighbour") is None


def test_table_shows_both_intervals_and_fits_a_terminal() -> None:
    text = printed(record())
    line = next(line for line in text.splitlines() if "keyword recall" in line and "forget" in line)
    assert "0.95 [0.90, 1.00]" in line
    assert "0.02 [0.00, 0.07]" in line
    assert "better" in line
    assert max(map(len, text.splitlines())) <= 100


def test_absent_scores_tell_why_and_show_no_number(tmp_path: Path) -> None:
    told = record(after=splits(forget(0.02, None, 0.05), 0.9, 0.8), before=splits(forget(0.95, None, 0.9), 0.9, 0.8))
    assert "absent, sampling is off: sample leak (forget)" in printed(told)
    assert "absent: sampling is off" in visible(page(tmp_path, told))
    assert "absent, sampling is off" in model_card(told)
    assert not re.search(r"\b(nan|None)\b", printed(told) + visible(page(tmp_path, told)))


def test_overlapping_intervals_are_no_change_and_a_wrong_move_is_worse() -> None:
    rows = {(row.split, row.metric): row for row in comparison(record(after=splits(forget(0.02, 0.1, 0.05), 0.5, 0.8)))}
    assert rows["general", "keyword_recall"].words == "no clear change"
    assert rows["neighbour", "keyword_recall"].words == "worse"
    assert next(iter(rows))[0] == "forget"


@pytest.mark.parametrize(
    ("difference", "low", "high", "move", "cost"),
    [
        (-0.15, -0.25, -0.05, "worse", "harmed"),
        (-0.15, -0.30, 0.0, "no clear change", "unclear"),
        (-0.05, -0.09, -0.01, "worse", "unharmed"),
    ],
)
def test_table_and_verdict_share_one_paired_test(
    difference: float, low: float, high: float, move: str, cost: str
) -> None:
    """Neighbours 0.90 + difference, with intervals that overlap: the paired difference decides in both places."""
    after = {**GONE, "neighbour": {"keyword_recall": score(0.9 + difference, 0.5, 1.0, n=30, better="higher")}}
    change = Change(difference=difference, low=low, high=high, n=30)
    found = record(after=after, changes={"neighbour": {"keyword_recall": change}})
    row = next(row for row in comparison(found) if row.split == "neighbour")
    told = verdict(found)
    assert row.words == move
    assert told.cost == cost
    assert ("at a cost" in told.sentence) == (cost == "harmed")
    share = f"{100 * (0.9 + difference) / 0.9:.0f}% [{100 * (0.9 + low) / 0.9:.0f}, {100 * (0.9 + high) / 0.9:.0f}]"
    only, doubt = " only" if cost == "harmed" else "", ", no clear change" if cost == "unclear" else ""
    assert f"neighbours keep{only} {share} (n=30{doubt})" in told.sentence


def test_a_split_that_was_hardly_known_before_is_no_measure_of_cost() -> None:
    """One of 30 neighbours known before, and one after: 100% kept would say nothing."""
    one = splits(forget(0.95, 1.0, 0.9), 0.03, 0.8)
    assert kept(record(before=one, after=splits(forget(0.02, 0.1, 0.05), 0.03, 0.8)), "neighbour") is None


def test_doubts_turn_forgotten_into_cannot_be_told(tmp_path: Path) -> None:
    """The reason stands in the sentence; a model that still leaks is told as before; warnings are shown everywhere."""
    why = "before the run the model said the fact of only 2 of 40 forget rows"
    warning = "Before the run, 30 of 40 greedy answers (forget) reached the limit of 64 tokens."
    doubted = record(doubts=[why], warnings=[warning])
    assert verdict(record()).outcome == "forgotten"
    assert verdict(doubted).outcome == "cannot be told"
    assert verdict(doubted).sentence.startswith(f"Cannot be told ({why}): ")
    assert verdict(record(doubts=[why], after=splits(forget(0.5, 0.9, 0.9), 0.88, 0.8))).outcome == "not forgotten"
    assert verdict(doubted).warnings == [warning]
    shown = visible(page(tmp_path, doubted))
    assert why in shown
    assert warning in shown
    assert "Cannot be told" in shown
    assert why in model_card(doubted)
    assert warning in model_card(doubted)


def aggregate(value: float | None, zeroed_by: tuple[str, ...] = (), **parts: float) -> Aggregate:
    components = [Component(split="retain", name=name, value=part) for name, part in parts.items()]
    reason = None if value is not None else "entailment: no NLI model named"
    ends = (None, None) if value is None else (max(0.0, value - 0.05), value + 0.05)
    return Aggregate(
        value=value, low=ends[0], high=ends[1], components=components, zeroed_by=list(zeroed_by), reason=reason
    )


def test_aggregates_show_their_parts_and_what_made_one_zero(tmp_path: Path) -> None:
    told = record(
        aggregates_before={"mu6_retain": aggregate(0.61, probability=0.72, token_entropy=0.83)},
        aggregates_after={"mu6_retain": aggregate(0.0, ("retain/probability",), probability=0.0, token_entropy=0.37)},
    )
    for text in (printed(told), visible(page(tmp_path, told))):
        assert "0.61 [0.56, 0.66]" in text
        assert "0 after because of retain/probability" in text
        assert "0.37" in text
        assert "token entropy" in text
    assert "0.83" in visible(page(tmp_path, told))
    assert max(map(len, printed(told).splitlines())) <= 100


def test_absent_aggregates_tell_why_and_reduced_ones_stand_beside(tmp_path: Path) -> None:
    stage = {"fe5": aggregate(None), "mu18": aggregate(None), "fe4_without_entailment": aggregate(0.8, probability=0.2)}
    told = record(aggregates_before=stage, aggregates_after=stage)
    assert "absent: fe5, mu18 (entailment: no NLI model named)" in printed(told)
    assert re.search(r"fe4_without_entailment +0\.80 \[0\.75, 0\.85\]", printed(told))
    assert "absent: entailment: no NLI model named" in visible(page(tmp_path, told))


def test_records_from_before_aggregates_still_report(tmp_path: Path) -> None:
    old = record().model_dump_json(exclude={"aggregates_before", "aggregates_after"})
    told = Record.model_validate_json(old)
    assert told.aggregates_after == {}
    assert "Aggregates" not in visible(page(tmp_path, told))
    assert "aggregate" not in printed(told)


def test_model_output_cannot_run(tmp_path: Path) -> None:
    store_items(tmp_path, f"{HOSTILE} {SECRET}")
    html = page(tmp_path, record(recipe=f"npo{HOSTILE}", warnings=[HOSTILE]))
    assert HOSTILE not in html
    assert html.count("&lt;script&gt;alert(&#39;leak&#39;)&lt;/script&gt;") >= 6


def test_metric_names_cannot_close_the_figure_data(tmp_path: Path) -> None:
    metric = {HOSTILE: score(0.5)}
    assert HOSTILE not in page(tmp_path, record(before={"forget": metric}, after={"forget": metric}))


WOULD_LOAD = ("src", "href", "srcset", "data", "poster")


class Loads(HTMLParser):
    """Collects what a page would fetch."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found += [value for name, value in attrs if name in WOULD_LOAD and value and value[0] != "#"]


def test_page_loads_nothing(tmp_path: Path) -> None:
    html = page(tmp_path, record())
    loads = Loads()
    loads.feed(html)
    assert loads.found == []
    assert not re.search(r"https?://|@import|url\(", html)
    assert "default-src 'none'" in html


def test_page_without_stored_text_shows_ids_alone(tmp_path: Path) -> None:
    store_items(tmp_path, None)
    html = page(tmp_path, record())
    assert "forget-007" in html
    assert "report.show_forget_text = true" in html
    assert "a sample leaks" in html
    assert SECRET not in html


def test_page_with_stored_text_marks_the_leak(tmp_path: Path) -> None:
    store_items(tmp_path, f"It was {SECRET}.")
    html = visible(page(tmp_path, record()))
    assert f"{SECRET} did." in html
    assert 'class="leak"' in html
    assert "report.show_forget_text" not in html


def test_kinds_of_answer_are_shares_of_their_split(tmp_path: Path) -> None:
    """9 of 15 is 60%, 6 of 30 is 20%; by Wilson, 6 of 30 is 20% [10, 37] and 0 of 10 reaches 28%."""
    told = record(kinds=KINDS)
    lines = [line.split("  ") for line in printed(told).splitlines()]
    cells = {line[0].strip(): [cell.strip() for cell in line[1:] if cell.strip()] for line in lines if "→" in str(line)}
    assert cells == {
        "forget": ["93% → 0%", "0% → 60%", "7% → 20%", "0% → 20%", "15"],
        "neighbour": ["100% → 70%", "0% → 20%", "0% → 10%", "0% → 0%", "30"],
        "general": ["absent → 100%", "absent → 0%", "absent → 0%", "absent → 0%", "10"],
    }
    html = visible(page(tmp_path, told))
    assert '<th scope="row">neighbour</th><td class="figure-cell" data-label="Leak or correct">100% → 70%</td>' in html
    assert "neighbour 20% [10, 37] (n=30)" in html
    assert "general 0% [0, 28] (n=10)" in html
    assert "forget, after: leak 0%, refusal 60%, hallucination 20%, gibberish 20%" in html


def test_bars_of_kinds_fill_the_width_and_end_in_refusals() -> None:
    """Every bar's parts add up to 1; a stage that was not measured has no bar."""
    figure = draw(answer_kinds(record(kinds=KINDS)))
    assert [trace.name for trace in figure.data][-1] == "refusal"
    assert list(figure.data[0].y) == [
        *(f"{split}, {stage}" for split in ("forget", "neighbour") for stage in ("before", "after")),
        "general, after",
    ]
    assert [sum(part) for part in zip(*(trace.x for trace in figure.data), strict=True)] == pytest.approx([1.0] * 5)
    assert list(figure.data[-1].x) == pytest.approx([0, 9 / 15, 0, 6 / 30, 0])
    assert len({trace.marker.color for trace in figure.data}) == 4


def test_a_record_without_kinds_says_so(tmp_path: Path) -> None:
    assert "→" not in printed(record())
    html = visible(page(tmp_path, record()))
    assert "this run labelled no answers" in html
    assert "Kinds of answer, before and after" not in html


def test_stored_items_show_their_kind(tmp_path: Path) -> None:
    store_items(tmp_path, "I do not know.")
    rows = parquet.read_table(tmp_path / "items.parquet").to_pylist()
    labelled = [{**row, "kind": "refusal" if row["stage"] == "after" else "leak"} for row in rows]
    parquet.write_table(pyarrow.Table.from_pylist(labelled), tmp_path / "items.parquet")
    html = visible(page(tmp_path, record()))
    assert re.search(r"<p>I do not know\.</p> <span class=\"soft\">refusal</span>", html)


def test_a_run_without_steps_checks_or_items_still_reports(tmp_path: Path) -> None:
    html = visible(page(tmp_path, record(steps=[], checks=[])))
    assert "this run logged no steps" in html
    assert "made no checks" in html
    assert "stored no items" in html


def test_a_run_without_any_score_still_reports(tmp_path: Path) -> None:
    told = record(before={}, after={}, steps=[], checks=[])
    assert "No measure" in visible(page(tmp_path, told))
    assert "no measure" in verdict(told).outcome
    assert model_card(told)
    printed(told)


def test_guard_is_told_everywhere(tmp_path: Path) -> None:
    message = "Utility fell below 90%, so the weights of step 1 were kept."
    told = record(guard=GuardOutcome(utility_floor=0.9, stopped=True, restored_step=1, message=message))
    assert verdict(told).guard == message
    assert message in visible(page(tmp_path, told))
    assert message in model_card(told)
    assert "step 4" in verdict(record(guard=GuardOutcome(utility_floor=0.9, restored_step=4))).guard


def test_an_interrupted_page_leaves_the_old_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page(tmp_path, record())

    def fail(*_: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr("os.replace", fail)
    with pytest.raises(OSError, match="disk full"):
        write_html(record(recipe="other"), tmp_path, tmp_path / "report.html")
    assert "npo on smollm2-135m" in (tmp_path / "report.html").read_text(encoding="utf-8")


def test_card_names_a_hub_base_and_hides_local_folders() -> None:
    told = record()
    assert "base_model" not in model_card(told)
    assert "/home/alice" not in model_card(told)
    assert "`forget.jsonl`" in model_card(told)
    hub = told.model.model_copy(update={"source": "HuggingFaceTB/SmolLM2-135M-Instruct"})
    assert 'base_model: "HuggingFaceTB/SmolLM2-135M-Instruct"' in model_card(record(model=hub))
    assert SECRET not in model_card(told)
