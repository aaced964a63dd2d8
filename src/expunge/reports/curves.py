"""The pictures of a run's training: what the steps logged, and the checks between them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from expunge.core.records import Estimate, GuardOutcome, Record, Squeeze, SqueezeCheck
from expunge.reports.canvas import AFTER, BEFORE, FORGET, KEEP, Picture, blank, ribbon
from expunge.reports.formats import ordered
from expunge.reports.squeeze import high, low, mid, span, target

if TYPE_CHECKING:
    import plotly.graph_objects as go

_PALE = "#86b1f1"
LOSSES = ("forget_loss", "retain_loss")


def losses(record: Record) -> Picture:
    """The losses over the steps; everything else that was logged can be chosen in their place."""
    about: dict[str, Any] = {
        "name": "losses",
        "title": "Training",
        "caption": "What each optimizer step logged.",
    }
    names = ordered((name for step in record.steps for name in step.values), LOSSES)
    if not names:
        return Picture(**about, missing="Left out: this run logged no steps.")
    figure = blank("step", "")
    first = [name for name in names if name in LOSSES] or names[:1]
    for name in names:
        logged = [(log.step, log.values[name]) for log in record.steps if name in log.values]
        figure.add_scatter(
            x=[step for step, _ in logged],
            y=[value for _, value in logged],
            name=name,
            mode="lines" if len(logged) > 1 else "markers",
            visible=name in first,
            line={"color": {"forget_loss": FORGET, "retain_loss": KEEP}.get(name, AFTER), "width": 2},
        )
    groups = [first, *([name] for name in names if name not in first)]
    alt = (
        f"Losses over {len(record.steps)} logged steps: {', '.join(f'{name} {_ends(record, name)}' for name in first)}."
    )
    return Picture(**about, alt=alt, choices=_choices(names, groups) if len(groups) > 1 else {}, figure=figure)


def checks(record: Record) -> Picture:
    """The looks at the model during training, and what the guard made of them."""
    about: dict[str, Any] = {
        "name": "checks",
        "title": "Checks during training",
        "caption": "Mean answer probability on a sample of forget rows and on held-out rows that are never trained on.",
    }
    if not record.checks:
        return Picture(**about, missing="Left out: this run made no checks while it trained.")
    figure = blank("step", "answer probability")
    steps = [check.step for check in record.checks]
    mode = "lines+markers"
    figure.add_scatter(
        x=steps,
        y=[check.forget for check in record.checks],
        name="Forget",
        mode=mode,
        line={"color": FORGET, "width": 2},
    )
    figure.add_scatter(
        x=steps,
        y=[check.utility for check in record.checks],
        name="Held-out utility",
        mode=mode,
        line={"color": KEEP, "width": 2, "dash": "dash"},
        marker={"symbol": "square"},
    )
    guard, last = record.guard, record.checks[-1]
    alt = f"Forget probability {record.checks[0].forget:.2f} to {last.forget:.2f}; "
    alt += f"held-out utility {record.checks[0].utility:.2f} to {last.utility:.2f}."
    if guard.utility_floor is not None:
        floor = guard.utility_floor * record.checks[0].utility
        figure.add_scatter(
            x=[steps[0], steps[-1]],
            y=[floor, floor],
            name="Guard floor",
            mode="lines",
            line={"color": KEEP, "width": 1.5, "dash": "dot"},
        )
        alt += f" The guard's floor is {floor:.2f}."
    _kept(figure, guard)
    if guard.restored_step is not None:
        alt += f" The weights of step {guard.restored_step} were kept."
    figure.update_yaxes(rangemode="tozero")
    return Picture(**about, alt=alt, figure=figure)


def squeezing(squeeze: Squeeze, guard: GuardOutcome) -> Picture:
    """The forget answers and their rewordings during training, relative to the untouched model."""
    about: dict[str, Any] = {
        "name": "squeezing",
        "title": "The answer falls: do its rewordings rise?",
        "caption": "Log-probability a token since step 0, means over prompts with 95% intervals. Rewordings are other "
        "answers that the original model gave, in bands by how likely it found them; a line above zero means that they "
        "became likelier. Nothing checks that they say the same.",
    }
    if not squeeze.checks:
        return Picture(**about, missing="Left out: no forget prompt had enough candidates.")
    figure = blank("step", "change, nats a token")
    steps = [check.step for check in squeeze.checks]
    lines: tuple[tuple[str, str, str, Callable[[SqueezeCheck], Estimate]], ...] = (
        ("Unlikely rewordings (last 40%)", BEFORE, "dot", low),
        ("Middling (next 40%)", _PALE, "dash", mid),
        ("Likeliest rewordings (top 20%)", AFTER, "solid", high),
        ("Forget answers", FORGET, "solid", target),
    )
    for name, colour, dash, change in lines:
        found = [change(check) for check in squeeze.checks]
        ribbon(figure, steps, [one.low for one in found], [one.high for one in found], colour)
        figure.add_scatter(
            x=steps,
            y=[value.value for value in found],
            name=name,
            mode="lines+markers",
            line={"color": colour, "width": 2 if dash != "solid" else 2.5, "dash": dash},
            marker={"size": 5},
        )
    figure.update_layout(legend={"traceorder": "reversed"})
    figure.add_hline(y=0, line={"color": BEFORE, "width": 1})
    _kept(figure, guard)
    peak = max(squeeze.checks[1:], key=lambda check: high(check).value)
    if high(peak).low > 0:
        figure.add_annotation(
            x=peak.step,
            y=high(peak).value,
            text=f"likeliest {span(high(peak))}",
            font={"color": AFTER},
            arrowcolor=AFTER,
            ax=30,
            ay=-30,
            xanchor="left",
        )
    last = squeeze.checks[-1]
    alt = f"By step {last.step}: forget answers {span(target(last))}, likeliest rewordings {span(high(last))}, "
    alt += f"middling {span(mid(last))}, unlikely {span(low(last))} nats a token."
    return Picture(**about, alt=alt, figure=figure)


def _kept(figure: go.Figure, guard: GuardOutcome) -> None:
    """Mark the step whose weights the guard went back to, if it did."""
    if guard.restored_step is not None:
        figure.add_vline(
            x=guard.restored_step,
            line={"color": BEFORE, "width": 1.5, "dash": "dash"},
            annotation_text=f"kept: step {guard.restored_step}",
            annotation_position="top left",
        )


def _choices(names: Sequence[str], groups: Sequence[Sequence[str]]) -> dict[str, list[bool]]:
    """What each entry of the menu shows."""
    return {
        "losses" if not index and len(group) > 1 else group[0]: [name in group for name in names]
        for index, group in enumerate(groups)
    }


def _ends(record: Record, name: str) -> str:
    values = [log.values[name] for log in record.steps if name in log.values]
    return f"from {values[0]:.2f} to {values[-1]:.2f}"
