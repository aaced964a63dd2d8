"""The pictures of a run's scores, and the list of all pictures in the report."""

from __future__ import annotations

from typing import Any

from expunge.core.records import Record, Score
from expunge.reports.answer_kinds import COLUMNS, kind_rows, refusals
from expunge.reports.canvas import AFTER, BEFORE, GRID, HEIGHT, KEEP, Picture, blank, errors
from expunge.reports.curves import checks, losses
from expunge.reports.formats import SPLITS, ordered, percent, reason, sentence_case
from expunge.reports.leaks_and_utility import find, leak_metrics, leaks, utility, worst
from expunge.reports.metric_texts import metric_meaning, metric_title

KIND_COLOURS = ("#56b4e9", "#cc79a7", "#e69f00", "#c9cfd8")
"""Of leak or correct, refusal, hallucination or wrong, gibberish (Okabe and Ito's): apart for colour-blind eyes too."""
SMALLEST_LABEL = 0.15
"""A narrower part of a bar has no room for its number."""


def pictures(record: Record) -> list[Picture]:
    """All figures of the report, in its order."""
    chosen = ordered(
        (metric for scores in record.after.values() for metric in scores), ("keyword_recall", "probability")
    )
    measured = [metric for metric in chosen if any(find(record.after, split, metric) for split in record.after)]
    scored = [kinds(record), *(bars(record, metric) for metric in measured[:2])]
    return [trade(record), *scored, losses(record), checks(record)]


def trade(record: Record) -> Picture:
    """How much is forgotten against how much of the rest is kept."""
    metrics = leak_metrics(record.after)
    before, after = worst(leaks(record.before, metrics)), worst(leaks(record.after, metrics))
    shares = utility(record)
    about: dict[str, Any] = {
        "name": "trade",
        "title": "Forgetting against utility",
        "caption": "Up: less of the knowledge can be drawn out, by the way of asking that draws out most. Right: more "
        "of the rest is kept (the mean over the splits that should stay). The best place is the upper right corner. "
        "Bars are 95% intervals.",
    }
    if before is None or after is None or not before.value or not shares:
        return Picture(
            **about, missing="Left out: it needs the forget split and another, each scored before and after."
        )
    kept = sum(share.value for share in shares) / len(shares)
    lows = [share.value if share.low is None else share.low for share in shares]
    highs = [share.value if share.high is None else share.high for share in shares]
    gone = 1 - after.value / before.value
    figure = blank("utility kept", "forgotten")
    across = {"low": kept - sum(lows) / len(lows), "high": sum(highs) / len(highs) - kept}
    up = {"low": _reach(after.score, "high") / before.value, "high": _reach(after.score, "low") / before.value}
    figure.add_scatter(
        x=[1, kept], y=[0, gone], mode="lines", line={"color": GRID, "dash": "dot"}, hoverinfo="skip", showlegend=False
    )
    figure.add_scatter(
        x=[1],
        y=[0],
        name="Before",
        mode="markers",
        marker={"size": 13, "color": BEFORE},
        error_y=errors(BEFORE, _reach(before.score, "high") / before.value, _reach(before.score, "low") / before.value),
    )
    figure.add_scatter(
        x=[kept],
        y=[gone],
        name="After",
        mode="markers",
        marker={"size": 15, "color": AFTER},
        error_x=errors(AFTER, across["low"], across["high"]),
        error_y=errors(AFTER, up["low"], up["high"]),
    )
    figure.add_scatter(
        x=[1],
        y=[1],
        name="Ideal",
        mode="markers",
        marker={"size": 17, "symbol": "star-open", "color": KEEP, "line": {"width": 2}},
    )
    figure.update_xaxes(
        tickformat=".0%", range=[min(0.0, kept - across["low"]) - 0.04, max(1.12, kept + across["high"] + 0.05)]
    )
    figure.update_yaxes(tickformat=".0%", range=[min(-0.12, gone - up["low"] - 0.05), 1.12])
    alt = f"After the run {percent(gone)} of the worst leak is gone and {percent(kept)} of utility is kept."
    return Picture(**about, alt=alt, figure=figure)


def kinds(record: Record) -> Picture:
    """What kinds of answer every split got: one bar a split and stage, the refusals at its right end."""
    rows = kind_rows(record)
    about: dict[str, Any] = {
        "name": "kinds",
        "title": "Kinds of answer",
        "caption": f"Each bar is all answers of a split at one stage. {refusals(rows)}".strip(),
    }
    if not rows:
        return Picture(**about, missing="Left out: this run labelled no answers.")
    figure = blank("share of answers", "")
    bars = [(f"{row.split}, {stage}", row, stage) for row in rows for stage in ("before", "after") if row.total(stage)]
    for place in (0, 2, 3, 1):
        shares = [row.share(stage, place) or 0.0 for _, row, stage in bars]
        figure.add_bar(
            y=[name for name, _, _ in bars],
            x=shares,
            name=COLUMNS[place],
            orientation="h",
            marker={"color": KIND_COLOURS[place], "line": {"color": "rgba(20,24,31,0.55)", "width": 1}},
            text=[percent(share) if share >= SMALLEST_LABEL else "" for share in shares],
            textposition="inside",
            textangle=0,
            insidetextanchor="middle",
            hovertemplate="%{y}: %{x:.0%}<extra>" + COLUMNS[place] + "</extra>",
        )
    figure.update_layout(
        barmode="stack", bargap=0.25, legend={"traceorder": "normal"}, height=max(HEIGHT, 200 + 30 * len(bars))
    )
    figure.update_xaxes(tickformat=".0%", range=[0, 1], showgrid=False)
    figure.update_yaxes(autorange="reversed", showgrid=False)
    told = [
        f"{name}: " + ", ".join(f"{kind} {percent(row.share(stage, place) or 0.0)}" for place, kind in row.kinds)
        for name, row, stage in bars
    ]
    return Picture(**about, alt=f"Kinds of answer. {'; '.join(told)}.", figure=figure)


def bars(record: Record, metric: str) -> Picture:
    """One metric on every split, before and after."""
    splits = [split for split in ordered(record.after, SPLITS) if metric in record.after[split]]
    shown = [split for split in splits if find(record.after, split, metric)]
    absent = [f"{split} ({reason(record.after[split][metric])})" for split in splits if split not in shown]
    about: dict[str, Any] = {
        "name": f"bars-{metric}",
        "title": sentence_case(metric_title(metric)),
        "caption": " ".join([metric_meaning(metric), *([f"Absent: {', '.join(absent)}."] if absent else [])]).strip(),
    }
    if not shown:
        return Picture(**about, missing=f"Left out: {metric_title(metric)} is absent on every split.")
    figure = blank("", metric_title(metric))
    for name, colour, scores in (("Before", BEFORE, record.before), ("After", AFTER, record.after)):
        found = [find(scores, split, metric) or Score(value=None) for split in shown]
        figure.add_bar(
            x=shown,
            y=[score.value for score in found],
            name=name,
            marker={"color": colour},
            error_y={
                **errors("#5d6778", 0, 0),
                "array": [_reach(score, "high") for score in found],
                "arrayminus": [_reach(score, "low") for score in found],
            },
        )
    figure.update_layout(barmode="group", bargap=0.35, bargroupgap=0.08)
    figure.update_xaxes(showgrid=False)
    figure.update_yaxes(rangemode="tozero")
    pairs = ((split, find(record.before, split, metric), find(record.after, split, metric)) for split in shown)
    told = [f"{split} {_plain(before)} to {_plain(after)}" for split, before, after in pairs]
    return Picture(**about, alt=f"{metric_title(metric)} before and after: {', '.join(told)}.", figure=figure)


def _reach(score: Score, end: str) -> float:
    """How far the interval reaches from the value, towards one end; 0 without an interval."""
    bound = score.low if end == "low" else score.high
    return 0.0 if bound is None or score.value is None else abs(bound - score.value)


def _plain(score: Score | None) -> str:
    return "absent" if score is None or score.value is None else f"{score.value:.2f}"
