"""`expunge eval`: what does any model know of any data?"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def evaluate(
    model: Annotated[str, typer.Argument(help="Embedded name, folder, .gguf file or hub id.")],
    data: Annotated[
        list[str] | None,
        typer.Option(help="SPLIT=DATA, e.g. forget=facts.jsonl; repeat for more. None: the shipped people."),
    ] = None,
    template: Annotated[str, typer.Option(help="chat or plain.")] = "chat",
    samples: Annotated[int, typer.Option(min=0, help="Sampled answers for each forget question.")] = 10,
    max_new_tokens: Annotated[int, typer.Option(min=1, help="Longest generated answer.")] = 64,
    seed: Annotated[int, typer.Option(min=0, help="Of samples and intervals.")] = 0,
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set", help="Any option of the measurement: evaluate.b=c, e.g. evaluate.options.METRIC.KEY=VALUE."
        ),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Write the scores to this JSON file.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress bars.")] = False,
) -> None:
    """Score a model: every metric on every split that is given, with intervals."""
    from expunge.api import measure
    from expunge.cli._console import print_rows, progress_for, quiet_libraries
    from expunge.cli._data import named_data
    from expunge.config import read_settings
    from expunge.core.errors import UserError
    from expunge.core.files import write_atomic
    from expunge.core.validation import check
    from expunge.evaluate.base import EvaluateConfig
    from expunge.reports.aggregates import aggregate_text
    from expunge.reports.words import number

    known = ("forget", "retain", "neighbour", "general")
    splits = named_data(data or [f"{name}=people:{name}" for name in known], known)
    if template not in ("chat", "plain"):
        raise UserError(f"--template: 'chat' or 'plain', got '{template}'")
    tables = read_settings(settings or (), {"evaluate": {"samples": samples, "max_new_tokens": max_new_tokens}})
    if unknown := sorted(set(tables) - {"evaluate"}):
        raise UserError(f"--set: only options of 'evaluate' can be set here, got '{unknown[0]}'")
    if not isinstance(tables["evaluate"], dict):
        raise UserError(f"--set: 'evaluate' is a table of options, got {tables['evaluate']!r}")
    quiet_libraries()
    found = measure(
        model,
        splits,
        seed=seed,
        config=check(EvaluateConfig, tables["evaluate"], "evaluate"),
        model_config={"template": template},
        progress=progress_for(quiet),
    )
    if out is not None:
        write_atomic(out, found.model_dump_json(indent=1))
    if as_json:
        print(found.model_dump_json(indent=1))
        return
    print_rows(
        [
            {
                "split": split,
                "name": metric,
                "value": "absent" if score.value is None else f"{score.value:.3f}",
                "interval": "" if score.low is None else f"[{score.low:.3f}, {score.high:.3f}]",
                "n": score.n,
                "note": score.reason or "",
            }
            for split, metrics in found.scores.items()
            for metric, score in metrics.items()
        ],
        as_json=False,
    )
    print_rows(
        [
            {
                "name": name,
                "value": aggregate_text(aggregate),
                "note": aggregate.reason or ", ".join(f"0 because of {part}" for part in aggregate.zeroed_by),
                "parts": "; ".join(
                    f"{part.split}/{part.name} {number(part.value)}"
                    for part in aggregate.components
                    if part.value is not None
                ),
            }
            for name, aggregate in found.aggregates.items()
        ],
        as_json=False,
    )
