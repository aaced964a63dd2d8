"""What the report, the terminal and the page say of the squeezing diagnostic."""

from __future__ import annotations

import re
from io import StringIO
from pathlib import Path

import pytest
from test_reports import page, record, visible

from expunge.core.records import Score
from expunge.core.squeeze_record import Estimate, Level, Squeeze, SqueezeCheck, SqueezeScores
from expunge.reports.charts import draw
from expunge.reports.squeeze import changes, print_squeeze, sentence, signed, squeeze_section
from expunge.reports.terminal import Terminal


def near(value: float, reach: float = 0.1) -> Estimate:
    return Estimate(value=value, low=value - reach, high=value + reach)


def level(change: float) -> Level:
    return Level(total=near(-9), mean=near(-1), total_change=near(9 * change), mean_change=near(change))


def check(step: int, target: float, high: float) -> SqueezeCheck:
    """Four steps an epoch."""
    bands = {"high": level(high), "mid": level(-0.5), "low": level(-0.7)}
    return SqueezeCheck(
        step=step,
        epoch=step / 4,
        end_of_epoch=step > 0 and step % 4 == 0,
        target=level(target),
        bands={"mean": bands, "sum": bands},  # type: ignore[dict-item]
        relative={"mean": near(high - target), "sum": near(9 * (high - target))},
        probability=near(0.5),
        neighbour_mass=near(0.2),
        top_k_mass=near(0.9),
        entropy=near(1.5),
    )


def squeeze(*moves: tuple[float, float]) -> Squeeze:
    """Checks at steps 0, 2, 4, 8, 12 with those changes of the target and of the likeliest rewordings."""
    steps = (2, 4, 8, 12)
    checks = [check(0, 0, 0), *(check(step, *move) for step, move in zip(steps, moves, strict=False))]
    scores = SqueezeScores(
        squeeze_high=Score(value=0.4, low=0.3, high=0.5, n=8), persist=Score(value=0.5, low=0.5, high=0.5, n=8)
    )
    return Squeeze(
        prompts=8,
        left_out=1,
        thin=2,
        generated=360,
        duplicates=40,
        copies=30,
        checks=checks,
        scores={"mean": scores, "sum": scores},
    )


SQUEEZED = squeeze((-0.5, 0.8), (-2, 0.3), (-4, -1), (-5, -2))
NOTHING = SQUEEZED.model_copy(
    update={
        "checks": [],
        "prompts": 0,
        "scores": {
            name: SqueezeScores(squeeze_high=absent, persist=absent)
            for name, absent in (("mean", Score(value=None, reason="no candidates")), ("sum", Score(value=None)))
        },
    }
)


def printed(told: Squeeze) -> str:
    console = Terminal(width=100, file=StringIO(), color_system=None)
    print_squeeze(told, console)
    return console.file.getvalue()  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("moves", "lead"),
    [
        (((-0.5, 0.8), (-2, 0.3), (-4, -1)), "Squeezed: while the forget answers fell"),
        (((-0.5, 0.05), (-2, -0.3), (-4, -1)), "Not squeezed outright"),
        (((-0.5, -0.4), (-2, -2), (-4, -4)), "Not squeezed: the likeliest rewordings fell with"),
        (((-0.5, 0.4), (-0.3, 0.4), (0.05, 0.4)), "No squeezing visible"),
    ],
)
def test_the_sentence_follows_the_intervals(moves: tuple[tuple[float, float], ...], lead: str) -> None:
    """Intervals reach 0.1 to both sides: 0.05 is no clear rise, 0.8 is one, even where the end lies below the start."""
    assert sentence(squeeze(*moves)).startswith(lead)


def test_the_sentence_counts_epochs_and_names_the_peak() -> None:
    """The rise is largest at step 2, which ends no epoch; of the ends 4, 8 and 12 only the first lies above zero."""
    told = sentence(SQUEEZED)
    assert "by up to +0.80 [+0.70, +0.90] nats per token at step 2" in told
    assert "above their start after 1 of 3 epochs" in told
    assert "the rewordings had moved by -2.00 nats per token, the answers by -5.00" in told
    assert "after 3 of 3 epochs" in sentence(squeeze((-1, -0.1), (-2, -0.2), (-3, -0.3), (-4, -0.4)))
    assert "after 0 of 1 epoch;" in sentence(squeeze((-0.5, -0.4), (-2, -2)))


def test_nothing_followed_is_told_with_its_reason(tmp_path: Path) -> None:
    assert "not measured: no candidates" in sentence(NOTHING)
    assert "not measured" in printed(NOTHING)
    assert "not measured" in visible(page(tmp_path, record(squeeze=NOTHING)))


def test_terminal_shows_every_check_and_fits() -> None:
    text = printed(SQUEEZED)
    assert "+0.80 [+0.70, +0.90]" in text
    assert [line.split()[0] for line in text.splitlines() if re.match(r" *\d+ +[\d.]+ ", line)] == ["2", "4", "8", "12"]
    assert max(map(len, text.splitlines())) <= 100
    assert len(changes(SQUEEZED).columns) == len(changes(SQUEEZED).rows[0])


def test_changes_keep_their_sign() -> None:
    assert [signed(value) for value in (0.314, -0.0, -2, 123.4)] == ["+0.31", "+0.00", "-2.00", "+123"]


def test_page_has_the_section_only_when_asked_for(tmp_path: Path) -> None:
    html = page(tmp_path, record(squeeze=SQUEEZED))
    assert "Squeezed: while the forget answers fell" in visible(html)
    assert 'data-for="plot-squeezing-1"' in html
    assert "8 forget prompts were followed, 2 of them with fewer than 10 rewordings; 1 had too few" in visible(html)
    assert "Squeezing" not in page(tmp_path, record())


def test_figure_draws_four_lines_from_zero() -> None:
    """Each with its ribbon; the peak is named only where it is clear."""
    figure = draw(squeeze_section(SQUEEZED, record().guard).charts[0])
    drawn = {trace.name: list(trace.y) for trace in figure.data if trace.name}
    assert list(drawn)[-2:] == ["Likeliest rewordings (top 20%)", "Forget answers"]
    assert drawn["Forget answers"] == [0, -0.5, -2, -4, -5]
    assert all(values[0] in (0, -0.5, -0.7) for values in drawn.values())
    assert len(figure.data) == 8
    assert len(figure.layout.annotations) == 1
    calm = draw(squeeze_section(squeeze((-1, -1), (-2, -2)), record().guard).charts[0])
    assert not calm.layout.annotations
