"""The squeezing diagnostic in words and as a table."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from expunge.core.records import GuardOutcome
from expunge.core.report_section import Cell, Chart, Mark, ReportSection, Series, Table, Tone
from expunge.core.squeeze_record import Estimate, Squeeze, SqueezeCheck
from expunge.reports.formats import interval_text, number
from expunge.reports.run_charts import kept_step
from expunge.reports.section import print_table

if TYPE_CHECKING:
    from expunge.reports.terminal import Terminal

Column = Callable[[SqueezeCheck], str]


def squeeze_section(squeeze: Squeeze, guard: GuardOutcome) -> ReportSection:
    """The diagnostic with its numbers and its chart.

    Args:
        squeeze: the diagnostic.
        guard: of the same run; a step whose weights it restored is marked.
    """
    few = f", {squeeze.thin} of them with fewer than 10 rewordings" if squeeze.thin else ""
    left_out = f"; {squeeze.left_out} had too few to follow" if squeeze.left_out else ""
    note = (
        f"{squeeze.prompts} forget prompts were followed{few}{left_out}. Of {squeeze.generated} answers of the "
        f"original model {squeeze.duplicates} repeated another or were empty, and {squeeze.copies} were the forget "
        "answer itself. The rewordings are not stored."
    )
    return ReportSection(
        title="Squeezing",
        sentence=sentence(squeeze),
        notes=[note],
        tables=[table for table in (scores(squeeze), changes(squeeze), tokens(squeeze)) if table.rows],
        charts=[_chart(squeeze, guard)],
    )


def sentence(squeeze: Squeeze) -> str:
    """Whether the likeliest rewordings rose or fell beside the forget answers, and for how many epochs."""
    if not squeeze.checks:
        return f"Squeezing was not measured: {squeeze.scores['mean'].squeeze_high.reason}."
    later = squeeze.checks[1:]
    last, peak = later[-1], max(later, key=lambda check: high(check).value)
    ends = [check for check in later if check.end_of_epoch]
    above = f"after {sum(high(check).value > 0 for check in ends)} of {_epochs(len(ends))}"
    slower = f"after {sum(check.relative['mean'].value > 0 for check in ends)} of {_epochs(len(ends))}"
    if target(last).high >= 0:
        lead = "No squeezing visible: the forget answers did not clearly fall"
    elif high(peak).low > 0:
        lead = (
            "Squeezed: while the forget answers fell, their likeliest rewordings rose, by up to "
            f"{span(high(peak))} nats per token at step {peak.step}, and were above their start {above}"
        )
    elif last.relative["mean"].low > 0:
        lead = (
            "Not squeezed outright: the likeliest rewordings never clearly rose, but fell less than the forget answers "
            f"{slower}"
        )
    else:
        lead = f"Not squeezed: the likeliest rewordings fell with the forget answers, above their start {above}"
    ended = f"at the end the rewordings had moved by {signed(high(last).value)} nats per token"
    return f"{lead}; {ended}, the answers by {signed(target(last).value)}."


def target(check: SqueezeCheck) -> Estimate:
    """Change of the forget answers' mean token log-probability since step 0."""
    return check.target.mean_change


def high(check: SqueezeCheck) -> Estimate:
    """The same of the likeliest rewordings, ranked by it."""
    return check.bands["mean"]["high"].mean_change


def mid(check: SqueezeCheck) -> Estimate:
    """The same of the rewordings of middling likelihood."""
    return check.bands["mean"]["mid"].mean_change


def low(check: SqueezeCheck) -> Estimate:
    """The same of the least likely rewordings."""
    return check.bands["mean"]["low"].mean_change


def changes(squeeze: Squeeze) -> Table:
    """How the forget answers and each band moved, check by check."""
    columns: dict[str, Column] = {
        "answers": lambda check: signed(target(check).value),
        "likeliest [95%]": lambda check: span(high(check)),
        "middling": lambda check: signed(mid(check).value),
        "unlikely": lambda check: signed(low(check).value),
        "above answers [95%]": lambda check: span(check.relative["mean"]),
    }
    return _table(
        "Change of log-probability since step 0, in nats per token: forget answers and rewordings", squeeze, columns
    )


def tokens(squeeze: Squeeze) -> Table:
    """Next-token distributions along the forget answers, and how much of the answer samples contain."""
    names = {
        "probability": "probability of the token",
        "neighbour_mass": "mass on its first neighbours",
        "top_k_mass": "mass on the current top k",
        "entropy": "entropy, nats",
        "rouge_l": "ROUGE-L recall of samples",
        "keyword_recall": "keyword in samples",
    }
    measured = {name for check in squeeze.checks for name in names if getattr(check, name) is not None}
    columns: dict[str, Column] = {
        heading: lambda check, name=name: _plain(getattr(check, name))  # type: ignore[misc]
        for name, heading in names.items()
        if name in measured
    }
    return _table("Token by token along the forget answers", squeeze, columns, first=0)


def scores(squeeze: Squeeze) -> Table:
    """Both scores under both rankings."""
    units = {"mean": "log-probability per token", "sum": "log-probability of the whole answer"}
    rows: list[list[Cell]] = [
        [units[ranking], found.squeeze_high, found.persist] for ranking, found in squeeze.scores.items()
    ]
    return Table(
        caption="Squeezing scores with their 95% intervals",
        columns=["Ranked and measured by", "Largest rise of the likeliest, nats", "Share of epochs above their start"],
        rows=rows,
    )


def print_squeeze(squeeze: Squeeze, terminal: Terminal) -> None:
    """Print the sentence and the changes."""
    terminal.prose(f"\n{sentence(squeeze)}")
    if squeeze.checks:
        print_table(changes(squeeze), terminal)


def span(value: Estimate) -> str:
    """`+0.31 [+0.12, +0.50]`."""
    return interval_text(value.value, value.low, value.high, signed)


def signed(value: float) -> str:
    """A change: its number with its sign."""
    return f"{'-' if value < 0 else '+'}{number(abs(value))}"


def _chart(squeeze: Squeeze, guard: GuardOutcome) -> Chart:
    """The forget answers and their rewordings during training, relative to the untouched model."""
    lines: tuple[tuple[str, Tone, int, Callable[[SqueezeCheck], Estimate]], ...] = (
        ("Unlikely rewordings (last 40%)", "original", 2, low),
        ("Middling (next 40%)", "unlearned", 1, mid),
        ("Likeliest rewordings (top 20%)", "unlearned", 0, high),
        ("Forget answers", "forget", 0, target),
    )
    series, marks, alt = [], [Mark(text="", axis="y", at=0), *kept_step(guard)], ""
    for name, tone, weight, change in lines if squeeze.checks else ():
        found = [change(check) for check in squeeze.checks]
        steps = [float(check.step) for check in squeeze.checks]
        lows, values, highs = ([getattr(one, end) for one in found] for end in ("low", "value", "high"))
        series.append(Series(name=name, x=steps, y=values, low=lows, high=highs, tone=tone, weight=weight))
    if squeeze.checks:
        peak, last = max(squeeze.checks[1:], key=lambda check: high(check).value), squeeze.checks[-1]
        if high(peak).low > 0:
            marks.append(Mark(text=f"likeliest {span(high(peak))}", axis="x", at=peak.step))
        alt = f"By step {last.step}: forget answers {span(target(last))}, likeliest rewordings {span(high(last))}, "
        alt += f"middling {span(mid(last))}, unlikely {span(low(last))} nats per token."
    caption = (
        "Log-probability per token since step 0, means over prompts with 95% intervals. Rewordings are other answers "
        "that the original model gave, in bands by the probability it gave them; a line above zero means that they "
        "became likelier. Whether they state the same fact is not checked."
    )
    return Chart(
        title="The answer falls: do its rewordings rise?",
        caption=caption if series else "Left out: no forget prompt had enough candidates.",
        across="step",
        up="change, nats per token",
        style="band",
        series=series,
        marks=marks,
        alt=alt,
    )


def _table(caption: str, squeeze: Squeeze, columns: dict[str, Column], first: int = 1) -> Table:
    rows: list[list[Cell]] = [
        [str(check.step), f"{check.epoch:.2f}", *(column(check) for column in columns.values())]
        for check in squeeze.checks[first:]
    ]
    return Table(caption=caption, columns=["step", "epoch", *columns], rows=rows)


def _plain(value: Estimate | None) -> str:
    return "" if value is None else interval_text(value.value, value.low, value.high)


def _epochs(count: int) -> str:
    return f"{count} epoch{'' if count == 1 else 's'}"
