"""A finding on the page and on the terminal, whatever the diagnostic."""

from __future__ import annotations

import json
import re
from io import StringIO
from typing import Any

import pytest
from provenances import provenance_of

from expunge.core.records import DataPrint, Score
from expunge.core.report_section import Chart, Diagnosis, Mark, ReportSection, Series, Table
from expunge.reports.charts import draw
from expunge.reports.formats import cell_text
from expunge.reports.section import page, print_section
from expunge.reports.terminal import Terminal

HOSTILE = "<script>alert('leak')</script>"
LINE = Series(name="original", x=[1, 2], y=[0.5, 2], low=[0.4, 1], high=[0.7, 4], tone="original")
BOX = Series(name="b", x=["forget"], y=[2], low=[1], high=[3], lowest=[0], highest=[9], tone="unlearned")


def chart(style: Any, series: Series, **more: Any) -> Chart:
    return Chart(title=style, caption=HOSTILE, across="block", up="value", style=style, series=[series], **more)


FINDING = ReportSection(
    title="Something",
    sentence=f"It was found in [forget] {HOSTILE}.",
    notes=["Read it so."],
    tables=[
        Table(
            caption="Numbers",
            columns=["rows", "score [95%]", "n"],
            rows=[
                ["forget", Score(value=0.5, low=0.25, high=0.75), 8],
                ["retain", Score(value=None, reason="no rows"), None],
            ],
        )
    ],
    charts=[
        chart("line", LINE, marks=[Mark(text="level", axis="y", at=1, low=0.5, high=1.5)], log=True),
        chart("histogram", LINE, marks=[Mark(text="null", axis="x", at=1.5)]),
        chart("bar", LINE),
        chart("box", BOX),
    ],
)


@pytest.fixture
def diagnosis() -> Diagnosis:
    return Diagnosis(
        diagnostic="something",
        subject="runs/one",
        models={"original": "tiny"},
        data={"forget": DataPrint(source="people:forget", rows=8, sha256="ab" * 32)},
        options={"layer": None},
        seed=0,
        provenance=provenance_of(HOSTILE),
        seconds=3.0,
        finding=FINDING,
    )


def test_the_page_draws_every_chart_and_escapes_what_it_is_given(diagnosis: Diagnosis) -> None:
    shown = page(diagnosis)
    specs = re.findall(r'<script type="application/json" class="spec" data-for="([\w-]+)">(.*?)</script>', shown, re.S)
    assert [json.loads(spec)["data"][0]["type"] for _, spec in specs] == ["scatter", "scatter", "bar", "box"]
    assert all(f'id="{place}"' in shown for place, _ in specs)
    assert HOSTILE not in shown
    assert '0.50 <span class="ci">[0.25, 0.75]</span>' in shown
    assert 'absent <span class="reason">no rows</span>' in shown
    assert not re.search(r'(src|href)="', shown)


def test_a_record_comes_back_as_it_was(diagnosis: Diagnosis) -> None:
    assert Diagnosis.model_validate_json(diagnosis.model_dump_json()) == diagnosis


def test_intervals_and_quartiles_reach_the_figure() -> None:
    line = draw(FINDING.charts[0])
    assert list(line.data[0].error_y.array) == pytest.approx([0.2, 2])
    assert list(line.data[0].error_y.arrayminus) == pytest.approx([0.1, 1])
    assert line.layout.yaxis.type == "log"
    assert {shape.type for shape in line.layout.shapes} == {"line", "rect"}
    box = draw(FINDING.charts[3]).data[0]
    assert [list(box[key]) for key in ("lowerfence", "q1", "median", "q3", "upperfence")] == [[0], [1], [2], [3], [9]]


def test_the_terminal_prints_sentence_table_and_notes() -> None:
    out = StringIO()
    print_section(FINDING, Terminal(file=out, width=100))
    shown = out.getvalue()
    assert FINDING.sentence in " ".join(shown.split())
    assert "score [95%]" in shown
    assert "0.50 [0.25, 0.75]" in shown
    assert "Read it so." in shown


def test_a_narrow_terminal_cuts_no_number_and_says_long_things_once() -> None:
    """Natural widths add up to more than 40; values with their intervals below each other need 36."""
    long = "how often the right answer is the likeliest of the four"
    score = Score(value=0.5, low=0.25, high=0.75)
    rows: list[Any] = [[f"attack {name}", score, score, long, None] for name in "ab"]
    rows.append(["attack c", Score(value=None, reason="no rows"), score, long, None])
    table = Table(caption="Numbers", columns=["attack", "before", "after", "counted", "nothing"], rows=rows)
    out = StringIO()
    print_section(FINDING.model_copy(update={"tables": [table]}), Terminal(file=out, width=40))
    shown = out.getvalue()
    assert shown.count("[0.25, 0.75]") == 5
    assert "attack a, attack b, attack c: how often" in shown
    assert "attack c: absent, no rows." in shown
    assert "nothing" not in shown, "an empty column takes no room"
    assert max(len(line.rstrip()) for line in shown.splitlines()) <= 40
    out = StringIO()
    print_section(FINDING.model_copy(update={"tables": [table]}), Terminal(file=out, width=30))
    assert out.getvalue().count("[0.25, 0.75]") == 5, "two tables, one below the other"
    assert out.getvalue().count("attack a") == 3, "in both, and below them"


@pytest.mark.parametrize(("cell", "shown"), [(None, ""), (3, "3"), (0.0, "0.00"), (0.00012, "0.00012"), ("a", "a")])
def test_cells_in_words(cell: Any, shown: str) -> None:
    assert cell_text(cell) == shown
