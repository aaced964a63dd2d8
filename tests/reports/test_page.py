"""What a reader of the report meets first, and how its tables, figures and menus are built."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from test_reports import forget, record, splits

from expunge.core.attack_record import AttackPoint, AttackResult, AttackScore, Robustness
from expunge.core.records import Score, SequenceRecord, SequenceStep, StepLog
from expunge.core.report_section import Chart, Series
from expunge.reports.charts import draw
from expunge.reports.continual import outcome, write_sequence
from expunge.reports.html import write_html
from expunge.reports.key_numbers import key_numbers, short_verdict
from expunge.reports.page import with_interval
from expunge.reports.robustness import attack_title, robustness_section
from expunge.reports.run_charts import logged_losses


def page(told: object, tmp_path: Path) -> str:
    write_html(told, tmp_path / "run", tmp_path / "report.html", items=[])  # type: ignore[arg-type]
    return (tmp_path / "report.html").read_text(encoding="utf-8")


def _line(name: str, knowledge: float, control: dict[str, list[float]] | None = None) -> AttackScore:
    def curve(values: list[float]) -> list[AttackPoint]:
        return [AttackPoint(at=place, knowledge=Score(value=value)) for place, value in enumerate(values)]

    return AttackScore(
        variant=name,
        knowledge=Score(value=knowledge, low=0.1, high=0.9, n=8),
        recovered=Score(value=-1.67, low=-2.0, high=0.1, n=8),
        seconds=1.0,
        along="block",
        curve=curve([0.5, knowledge]),
        control_curves={key: curve(values) for key, values in (control or {}).items()},
    )


CARD = Robustness(
    rows=8,
    original=Score(value=1.0, n=8),
    unlearned=Score(value=0.3, n=8),
    controls={"retrained": Score(value=0.0, n=8), "original": Score(value=1.0, n=8)},
    attacks=[
        AttackResult(
            name="gcg",
            access="weights",
            variants=[_line("", 0.6, {"retrained": [0, 0], "original": [1, 1]}), _line("suffix", 0.4)],
        ),
        AttackResult(name="noise", access="weights", variants=[_line("", 0.2)]),
    ],
)


def test_three_numbers_come_before_the_long_sentence(tmp_path: Path) -> None:
    """Plainly 2%; the worst way of asking is a paraphrase with 60%; of 0.9 and 0.8 kept the least is shown."""
    told = record(after=splits(forget(0.02, 0.10, 0.60), 0.9, 0.8))
    plain, most, kept = key_numbers(told)
    assert (plain.value, plain.interval != "") == ("2%", True)
    assert (most.value, most.about) == ("60%", "paraphrased questions")
    assert kept.name == "Utility kept"
    attacked = told.model_copy(update={"robustness": CARD})
    assert (key_numbers(attacked)[1].value, key_numbers(attacked)[1].about) == ("60%", "GCG, with its weights")
    html = page(told, tmp_path)
    places = [
        html.index(text) for text in ('class="label', short_verdict("not forgotten", "x")[:20], 'class="key-numbers"')
    ]
    assert places == sorted(places)


def test_warnings_stand_above_the_contents(tmp_path: Path) -> None:
    told = record(after=splits(forget(0.02, 0.10, 0.60), 0.9, 0.8)).model_copy(
        update={"warnings": ["Keywords <i>are</i> wrong."]}
    )
    html = page(told, tmp_path)
    assert html.index("Keywords &lt;i&gt;are&lt;/i&gt; wrong.") < html.index('aria-label="Contents"')


def test_every_entry_of_the_contents_leads_somewhere(tmp_path: Path) -> None:
    html = page(record(after=splits(forget(0.02, 0.10, 0.60), 0.9, 0.8)), tmp_path)
    anchors = re.findall(r'<li><a href="#([^"]+)">', html)
    assert len(anchors) > 5
    assert all(f'id="{anchor}"' in html for anchor in anchors)
    sections = set(re.findall(r'<section aria-labelledby="([^"]+)"', html))
    assert sections == set(anchors)


def test_cells_of_a_narrow_page_say_their_column(tmp_path: Path) -> None:
    html = page(record(after=splits(forget(0.02, 0.10, 0.60), 0.9, 0.8)), tmp_path)
    assert {"Before", "After", "n", "Change"} <= set(re.findall(r'data-label="([^"]+)"', html))


def test_intervals_and_reasons_can_stand_below_their_value() -> None:
    assert with_interval("0.40 [0.1, 0.9]") == '0.40 <span class="ci">[0.1, 0.9]</span>'
    assert with_interval("absent: <b>") == 'absent <span class="reason">&lt;b&gt;</span>'
    assert with_interval("a [<i>]") == 'a <span class="ci">[&lt;i&gt;]</span>'
    assert with_interval("plain <b>") == "plain &lt;b&gt;"


def test_the_training_menu_is_a_select_outside_the_picture(tmp_path: Path) -> None:
    told = record(after=splits(forget(0.02, 0.10, 0.60), 0.9, 0.8))
    steps = [
        StepLog(step=n, epoch=n, values={"forget_loss": 1.0, "retain_loss": 2.0, "grad_norm": 3.0}) for n in (1, 2)
    ]
    told = told.model_copy(update={"steps": steps})
    chart = logged_losses(told)
    assert chart.menu == {"losses": ["forget_loss", "retain_loss"], "grad_norm": ["grad_norm"]}
    assert [trace.visible for trace in draw(chart).data] == [None, None, False]
    assert not draw(chart).layout.updatemenus
    html = page(told, tmp_path)
    assert re.search(
        r'<select data-for="(plot-\d+)">.*?</select></label></p>\s*<div class="plot" id="\1" role="img"', html
    )
    assert '<option value="True,True,False">losses</option><option value="False,False,True">grad_norm</option>' in html
    assert "onchange" not in html


def test_attacks_are_named_as_they_are_written_and_dashes_are_explained_where_there_are_any() -> None:
    assert (attack_title("gcg"), attack_title("soft_prompt"), attack_title("of_mine")) == (
        "GCG",
        "soft prompt",
        "of mine",
    )
    found = robustness_section(CARD)
    _, gcg, noise = found.charts
    assert gcg.title == "GCG, along block"
    assert [one.name for one in gcg.series] == ["GCG", "suffix", "retrained", "original"]
    assert (gcg.caption, noise.caption) == ("Dashed: the control models.", "")
    assert any("below 0" in note for note in found.notes)
    drawn = draw(gcg)
    assert [line.line.color for line in drawn.data] == [drawn.data[place].line.color for place in (0, 1, 0, 0)]
    assert drawn.data[0].line.color != drawn.data[1].line.color
    assert len({line.line.dash for line in (drawn.data[0], *drawn.data[2:])}) == 3


@pytest.mark.parametrize(("values", "starts"), [([0.6, 0.9], "tozero"), ([1.6, 2.9], None), ([-0.2, 0.5], None)])
def test_shares_start_at_zero(values: list[float], starts: str | None) -> None:
    series = [Series(name="a", x=[0.0, 1.0], y=values)]
    chart = Chart(title="t", caption="", across="block", up="share", style="line", series=series)
    assert draw(chart).layout.yaxis.rangemode == starts
    assert draw(chart).layout.xaxis.dtick == 1


def test_a_long_axis_title_takes_several_lines() -> None:
    up = "answer left when the original reads this model's states; 0: as little as with the retrained model's states"
    chart = Chart(title="t", caption="", across="block", up=up, style="line", series=[Series(name="a", x=[0], y=[1])])
    lines = draw(chart).layout.yaxis.title.text.split("<br>")
    assert " ".join(lines) == up
    assert max(map(len, lines)) <= 40


def test_a_table_of_many_columns_is_dense(tmp_path: Path) -> None:
    html = page(
        record(after=splits(forget(0.02, 0.10, 0.60), 0.9, 0.8)).model_copy(update={"robustness": CARD}), tmp_path
    )
    assert 'class="dense"' in html
    assert 'aria-hidden="true">The table goes on' in html


def test_a_sequence_says_in_one_line_what_is_gone(tmp_path: Path) -> None:
    """Two requests of 40 rows: 0 of 40 reaches up to 9%, 20 of 40 is half; neighbours fell from 1 to 0.5."""
    gone, known = Score(value=0.0, low=0.0, high=0.09, n=40), Score(value=0.5, low=0.35, high=0.65, n=40)
    full = Score(value=1.0, low=0.91, high=1.0, n=40)
    steps = [
        SequenceStep(
            step=step,
            requests=[{"keyword_recall": first}, {"keyword_recall": second}],
            utility={"neighbour": {"keyword_recall": kept}},
        )
        for step, first, second, kept in ((0, full, full, full), (1, gone, full, full), (2, gone, known, known))
    ]
    told = SequenceRecord(recipe="npo", config={}, requests=["a", "b"], data=["", ""], steps=steps)
    assert outcome(told).summary.startswith("1 of the 2 requests carried out so far is forgotten")
    assert outcome(told).summary.endswith("at a cost to neighbour.")
    assert outcome(told.model_copy(update={"steps": steps[:2]})).label == "Forgotten"
    html = write_sequence(told, tmp_path).read_text(encoding="utf-8")
    regions = re.findall(r'role="region" aria-label="([^"]+)"', html)
    assert len(set(regions)) == len(regions) == 2
    assert '<th scope="col"></th>' not in html
    assert "<script" not in html
