"""`expunge eval`: what do models know of a benchmark, or of any data?"""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from expunge.evaluation import Plan


def evaluate(
    models: Annotated[list[str], typer.Argument(help="Embedded names, folders, .gguf files or hub ids.")],
    suite: Annotated[
        str | None, typer.Option(help="One of `expunge suites`, with a variant (tofu:forget05), or your own TOML file.")
    ] = None,
    folder: Annotated[str, typer.Option(help="Local copy of the suite's data instead of the hub.")] = "",
    data: Annotated[
        list[str] | None,
        typer.Option(help="ROLE=DATA, e.g. forget=facts.jsonl; repeat for more. None, no suite: the shipped people."),
    ] = None,
    reference: Annotated[
        str | None, typer.Option(help="Model that never saw the forget rows, or its file from `expunge import-ou`.")
    ] = None,
    original: Annotated[str | None, typer.Option(help="Model before unlearning: similarity is to its answers.")] = None,
    template: Annotated[str | None, typer.Option(help="chat or plain; none: as the suite says, else chat.")] = None,
    samples: Annotated[int | None, typer.Option(min=0, help="Sampled answers for each forget question.")] = None,
    max_new_tokens: Annotated[int | None, typer.Option(min=1, help="Longest generated answer.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of samples and intervals.")] = 0,
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set", help="Any option of the measurement: evaluate.b=c, e.g. evaluate.options.METRIC.KEY=VALUE."
        ),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="New directory for records, table, CSV and rows.")] = None,
    show_text: Annotated[bool, typer.Option("--show-text", help="Keep all text in items.parquet.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON: an object, or an array for several.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress bars.")] = False,
) -> None:
    """Score models: every metric on every set, with intervals."""
    from expunge.cli._console import console, print_rows, progress_for, quiet_libraries
    from expunge.core.errors import UserError
    from expunge.evaluation import check_out, evaluate_models, is_first_process, write_results
    from expunge.reports.evaluation import aggregate_rows, as_markdown, terminal_rows

    if suite is not None and data:
        raise UserError("--data: a suite names its own data; leave one of the two out")
    if folder and suite is None:
        raise UserError("--folder: only a suite has data that a folder can replace")
    if template not in (None, "chat", "plain"):
        raise UserError(f"--template: 'chat' or 'plain', got '{template}'")
    if out is not None:
        check_out(out)
    given: dict[str, Any] = {"samples": samples, "max_new_tokens": max_new_tokens}
    options = _options(settings or (), {key: value for key, value in given.items() if value is not None})
    plan = _suite_plan(suite, folder, options, template, seed) if suite else _data_plan(data, options, template, seed)
    quiet_libraries()
    results = evaluate_models(
        models,
        plan,
        original=original,
        reference=reference,
        command=shlex.join(["expunge", *sys.argv[1:]]),
        progress=progress_for(quiet),
    )
    if not is_first_process():
        return
    if out is not None:
        write_results(results, out, show_text)
    records = [result.record for result in results]
    if as_json:
        texts = [record.model_dump_json(indent=1) for record in records]
        print(texts[0] if len(texts) == 1 else "[" + ",\n".join(texts) + "]")
    elif len(records) == 1:
        print_rows(terminal_rows(records[0]), as_json=False)
        print_rows(aggregate_rows(records[0]), as_json=False)
    else:
        console().print(as_markdown(records), markup=False, highlight=False)


def _options(settings: list[str] | tuple[()], given: dict[str, Any]) -> dict[str, Any]:
    """The `evaluate` table that the command line asks for."""
    from expunge.config import read_settings
    from expunge.core.errors import UserError

    tables = read_settings(settings, {"evaluate": given})
    if unknown := sorted(set(tables) - {"evaluate"}):
        raise UserError(f"--set: only options of 'evaluate' can be set here, got '{unknown[0]}'")
    options = tables["evaluate"]
    if not isinstance(options, dict):
        raise UserError(f"--set: 'evaluate' is a table of options, got {options!r}")
    return options


def _suite_plan(name: str, folder: str, options: dict[str, Any], template: str | None, seed: int) -> Plan:
    from expunge.evaluate.suite import load_suite
    from expunge.evaluation import suite_plan

    model = {"template": template} if template else {}
    return suite_plan(load_suite(name, folder, {"evaluate": options, "model": model}), name, seed)


def _data_plan(data: list[str] | None, options: dict[str, Any], template: str | None, seed: int) -> Plan:
    from expunge.cli._data import named_data
    from expunge.core.validation import check
    from expunge.data.example import SPLITS
    from expunge.evaluate.base import EvaluateConfig
    from expunge.evaluation import data_plan

    splits = named_data(data or [f"{name}=people:{name}" for name in SPLITS if name != "holdout"], SPLITS)
    config = check(EvaluateConfig, options, "evaluate")
    return data_plan(splits, config, seed, {"template": template or "chat"})
