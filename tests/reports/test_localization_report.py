"""The figure of a localizer's curve, in a run's report and by itself."""

from __future__ import annotations

from io import StringIO
from pathlib import Path

import pytest
from test_reports import HOSTILE, page, record, visible

from expunge.core.records import LayerCurve, SelectionPrint
from expunge.reports import localization
from expunge.reports.charts import draw
from expunge.reports.localization import curve_chart, named_layers
from expunge.reports.page import in_words
from expunge.reports.terminal import Terminal

CURVE = LayerCurve(
    name="average indirect effect",
    values=[0.01, 0.2, 0.1, -0.02],
    low=[0.0, 0.1, 0.05, -0.03],
    high=[0.02, 0.3, 0.15, 0.0],
)
BARE = LayerCurve(name="mutual information", values=[3.0, 1.0, 2.0, 0.5])


def selection(*curves: LayerCurve, layers: tuple[int, ...] = (1, 2)) -> SelectionPrint:
    evidence = {"layers": list(layers), "prompt": "a secret"}
    return SelectionPrint(
        localizer="causal_tracing", num_parameters=1234, names=["a.weight"], evidence=evidence, curves=list(curves)
    )


@pytest.mark.parametrize(
    ("layers", "told"),
    [([4], "block 4"), ([2, 1], "blocks 1 to 2"), ([0, 2, 3, 9], "blocks 0, 2 to 3 and 9")],
)
def test_blocks_are_named_as_runs(layers: list[int], told: str) -> None:
    assert named_layers(layers) == told


def test_chosen_blocks_are_shaded_and_the_interval_is_a_band() -> None:
    """Two runs of chosen blocks are two areas, each half a block wider; one trace is the band, one the line."""
    chart = curve_chart(CURVE, [0, 2, 3])
    figure = draw(chart)
    band, line = figure.data
    assert list(line.y) == CURVE.values
    assert list(band.y) == [*CURVE.high, *reversed(CURVE.low)]
    areas = [(shape.x0, shape.x1) for shape in figure.layout.shapes if shape.type == "rect"]
    assert areas == [(-0.5, 0.5), (1.5, 3.5)]
    assert "largest in block 1 (0.20). Chosen: blocks 0 and 2 to 3." in in_words(chart)
    bare = curve_chart(BARE, [])
    assert len(draw(bare).data) == 1
    assert "Chosen" not in bare.alt + bare.caption


def test_a_run_shows_its_curve_where_the_selection_is_named(tmp_path: Path) -> None:
    html = page(tmp_path, record(selection=selection(CURVE, BARE)))
    section = html[html.index('id="moved"') : html.index('id="time"')]
    assert 'data-for="plot-located-1"' in section
    assert 'data-for="plot-located-2"' in section
    assert "Average indirect effect by block" in section
    assert "plot-located" not in page(tmp_path, record())


def test_a_page_of_its_own_keeps_text_out_and_holds_every_number() -> None:
    html = localization.page(selection(CURVE), f"model{HOSTILE}", {"forget": "facts.jsonl, 8 rows"})
    assert HOSTILE not in html
    text = visible(html)
    assert "causal_tracing chose blocks 1 to 2: 1,234 weights in 1 parameter." in text
    assert "[0.1000, 0.3000]" in text
    assert "a secret" not in html
    assert 'id="plotly"' in html
    assert 'id="plotly"' not in localization.page(selection(), "model", {})


def test_the_terminal_shows_bars_as_long_as_the_values() -> None:
    """The largest value has the longest bar, a negative one none."""
    console = Terminal(width=100, file=StringIO(), color_system=None)
    localization.print_located(selection(CURVE, BARE), console)
    text = console.file.getvalue()  # type: ignore[attr-defined]
    rows = [line for line in text.splitlines() if line.strip()[:1].isdigit()]
    assert [row.count("█") for row in rows[:4]] == [pytest.approx(1.6, abs=1), 32, 16, 0]
    assert sum("chosen" in row for row in rows) == 4
    assert max(map(len, text.splitlines())) <= 100
