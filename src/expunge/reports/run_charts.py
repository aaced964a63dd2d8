"""The charts of a run's report: its scores, its training, and the checks during it."""

from __future__ import annotations

from expunge.core.records import GuardOutcome, Record, Score
from expunge.core.report_section import Chart, Mark, Series
from expunge.reports.answer_kinds import COLUMNS, kind_rows, refusals
from expunge.reports.formats import SPLITS, ordered, percent, reason, sentence_case
from expunge.reports.leaks_and_utility import find, leak_metrics, leaks, utility, worst
from expunge.reports.metric_texts import metric_meaning, metric_title

_SHOWN = ("keyword_recall", "probability")
"""Metrics that have a chart where there are scores of them; else the first two that there are."""
_LOSSES = {"forget_loss": "forget", "retain_loss": "retain"}


def run_charts(record: Record) -> list[Chart]:
    """All charts of the report, in its order."""
    metrics = ordered((metric for scores in record.after.values() for metric in scores), _SHOWN)
    measured = [metric for metric in metrics if any(find(record.after, split, metric) for split in record.after)]
    bars = [score_bars(record, metric) for metric in measured[:2]]
    return [trade_off(record), answer_kinds(record), *bars, logged_losses(record), training_checks(record)]


def trade_off(record: Record) -> Chart:
    """How much is forgotten against how much of the rest is kept."""
    metrics = leak_metrics(record.after)
    before, after = worst(leaks(record.before, metrics)), worst(leaks(record.after, metrics))
    shares = utility(record)
    caption = (
        "Up: less of the knowledge can be extracted, by the most successful way of asking. Right: more of the rest is "
        "kept (mean over the splits that should stay). The best place is the upper right corner. Bars: 95% intervals."
    )
    chart = Chart(
        title="Forgetting against utility",
        caption=caption,
        across="utility kept",
        up="forgotten",
        style="scatter",
        series=[],
    )
    if before is None or after is None or not before.value or not shares:
        why = "Left out: it needs scores before and after of the forget split and of another split."
        return chart.model_copy(update={"caption": why})
    kept = sum(share.value for share in shares) / len(shares)
    lows = [share.value if share.low is None else share.low for share in shares]
    highs = [share.value if share.high is None else share.high for share in shares]
    gone = 1 - after.value / before.value

    def forgotten(score: Score, value: float) -> dict[str, list[float]]:
        ends = (value if score.high is None else score.high, value if score.low is None else score.low)
        return dict(zip(("low", "high"), ([1 - end / before.value] for end in ends), strict=True))

    series = [
        Series(name="", x=[1, kept], y=[0, gone]),
        Series(name="Before", x=[1], y=[0], tone="original", **forgotten(before.score, before.value)),
        Series(
            name="After",
            x=[kept],
            y=[gone],
            lowest=[sum(lows) / len(lows)],
            highest=[sum(highs) / len(highs)],
            tone="unlearned",
            **forgotten(after.score, after.value),
        ),
        Series(name="Ideal", x=[1], y=[1], tone="retain", weight=1),
    ]
    alt = f"After the run {percent(gone)} of the worst leak is gone and {percent(kept)} of utility is kept."
    return chart.model_copy(update={"series": series, "alt": alt})


def answer_kinds(record: Record) -> Chart:
    """The kinds of answer on every split: one bar per split and stage, the refusals at its right end."""
    rows = kind_rows(record)
    bars = {
        f"{row.split}, {stage}": [row.share(stage, place) or 0.0 for place in range(len(COLUMNS))]
        for row in rows
        for stage in ("before", "after")
        if row.total(stage)
    }
    kinds = {f"{row.split}, {stage}": row.kinds for row in rows for stage in ("before", "after")}
    words = [
        f"{name}: {', '.join(f'{kind} {percent(shares[place])}' for place, kind in kinds[name])}"
        for name, shares in bars.items()
    ]
    shown = f"Each bar is all answers of a split at one stage. {refusals(rows)}".strip()
    return Chart(
        title="Kinds of answer",
        caption=shown if bars else "Left out: this run labelled no answers.",
        across="share of answers",
        up="",
        style="stack",
        series=[
            Series(name=COLUMNS[place], x=list(bars), y=[shares[place] for shares in bars.values()], hue=place)
            for place in (0, 2, 3, 1)
            if bars
        ],
        alt=f"Kinds of answer. {'; '.join(words)}.",
    )


def score_bars(record: Record, metric: str) -> Chart:
    """One metric on every split, before and after."""
    title = metric_title(metric)
    splits = [split for split in ordered(record.after, SPLITS) if metric in record.after[split]]
    shown = [split for split in splits if find(record.after, split, metric)]
    absent = [f"{split} ({reason(record.after[split][metric])})" for split in splits if split not in shown]
    series, words = [], {split: "absent" for split in shown}
    for name, tone, scores in (("Before", "original", record.before), ("After", "unlearned", record.after)):
        found = {split: score for split in shown if (score := find(scores, split, metric))}
        values = {split: score.value for split, score in found.items() if score.value is not None}
        for split, value in values.items():
            words[split] = f"{value:.2f}" if name == "Before" else f"{words[split]} to {value:.2f}"
        series.append(
            Series(
                name=name,
                x=list(values),
                y=list(values.values()),
                low=[value if (end := found[split].low) is None else end for split, value in values.items()],
                high=[value if (end := found[split].high) is None else end for split, value in values.items()],
                tone=tone,
            )
        )
    return Chart(
        title=sentence_case(title),
        caption=" ".join([metric_meaning(metric), *([f"Absent: {', '.join(absent)}."] if absent else [])]).strip(),
        across="",
        up=title,
        style="bar",
        series=series,
        alt=f"{title} before and after: {', '.join(f'{split} {text}' for split, text in words.items())}.",
    )


def logged_losses(record: Record) -> Chart:
    """The losses over the steps; a menu shows everything else that was logged."""
    names = ordered((name for step in record.steps for name in step.values), _LOSSES)
    logged = {name: {log.step: log.values[name] for log in record.steps if name in log.values} for name in names}
    first = [name for name in names if name in _LOSSES] or names[:1]
    menu = {"losses" if len(first) > 1 else name: first for name in first[:1]}
    menu |= {name: [name] for name in names if name not in first}
    ends = {name: list(logged[name].values()) for name in first}
    words = ", ".join(f"{name} from {values[0]:.2f} to {values[-1]:.2f}" for name, values in ends.items())
    return Chart(
        title="Training",
        caption="Values that each optimizer step logged." if names else "Left out: this run logged no steps.",
        across="step",
        up="",
        style="line",
        series=[
            Series(name=name, x=list(values), y=list(values.values()), tone=_LOSSES.get(name, "unlearned"))
            for name, values in logged.items()
        ],
        alt=f"Losses over {len(record.steps)} logged steps: {words}.",
        menu=menu if len(menu) > 1 else {},
    )


def training_checks(record: Record) -> Chart:
    """The checks of the model during training, and the guard's decision."""
    checks, guard = record.checks, record.guard
    caption = "Mean answer probability on a sample of forget rows and on held-out rows that are never trained on."
    marks, alt = kept_step(guard), ""
    if checks:
        alt = f"Forget probability {checks[0].forget:.2f} to {checks[-1].forget:.2f}; "
        alt += f"held-out utility {checks[0].utility:.2f} to {checks[-1].utility:.2f}."
        if guard.utility_floor is not None:
            floor = guard.utility_floor * checks[0].utility
            marks.append(Mark(text="guard floor", axis="y", at=floor))
            alt += f" The guard's floor is {floor:.2f}."
        if guard.restored_step is not None:
            alt += f" The weights of step {guard.restored_step} were kept."
    steps = [float(check.step) for check in checks]
    series = [
        Series(name="Forget", x=steps, y=[check.forget for check in checks], tone="forget"),
        Series(name="Held-out utility", x=steps, y=[check.utility for check in checks], tone="retain", weight=1),
    ]
    return Chart(
        title="Checks during training",
        caption=caption if checks else "Left out: this run made no checks while it trained.",
        across="step",
        up="answer probability",
        style="line",
        series=series if checks else [],
        marks=marks,
        alt=alt,
    )


def kept_step(guard: GuardOutcome) -> list[Mark]:
    """The step whose weights the guard restored, if it did."""
    step = guard.restored_step
    return [] if step is None else [Mark(text=f"kept: step {step}", axis="x", at=step)]
