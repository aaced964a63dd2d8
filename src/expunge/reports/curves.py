"""The pictures of a run's training: what the steps logged, and the checks between them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from expunge.core.records import Record
from expunge.reports.canvas import AFTER, BEFORE, FORGET, GRID, KEEP, Picture, blank
from expunge.reports.words import ordered

if TYPE_CHECKING:
    import plotly.graph_objects as go

LOSSES = ("forget_loss", "retain_loss")


def losses(record: Record) -> Picture:
    """The losses over the steps; everything else that was logged can be chosen in their place."""
    about: dict[str, Any] = {
        "name": "losses",
        "title": "Training",
        "caption": "What each optimizer step logged. Choose what to show in the menu.",
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
    if len(groups) > 1:
        _menu(figure, names, groups)
    alt = (
        f"Losses over {len(record.steps)} logged steps: {', '.join(f'{name} {_ends(record, name)}' for name in first)}."
    )
    return Picture(**about, alt=alt, figure=figure)


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
    if guard.restored_step is not None:
        figure.add_vline(
            x=guard.restored_step,
            line={"color": BEFORE, "width": 1.5, "dash": "dash"},
            annotation_text=f"kept: step {guard.restored_step}",
            annotation_position="top left",
        )
        alt += f" The weights of step {guard.restored_step} were kept."
    figure.update_yaxes(rangemode="tozero")
    return Picture(**about, alt=alt, figure=figure)


def _menu(figure: go.Figure, names: Sequence[str], groups: Sequence[Sequence[str]]) -> None:
    buttons = [
        {
            "label": "losses" if not index and len(group) > 1 else group[0],
            "method": "update",
            "args": [{"visible": [name in group for name in names]}],
        }
        for index, group in enumerate(groups)
    ]
    place = {"x": 0, "xanchor": "left", "y": 1.16, "yanchor": "bottom"}
    figure.update_layout(
        margin={"t": 92},
        updatemenus=[{"buttons": buttons, "bgcolor": "rgba(128,128,128,0.1)", "bordercolor": GRID, **place}],
    )


def _ends(record: Record, name: str) -> str:
    values = [log.values[name] for log in record.steps if name in log.values]
    return f"from {values[0]:.2f} to {values[-1]:.2f}"
