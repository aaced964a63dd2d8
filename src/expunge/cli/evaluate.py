"""`expunge eval`: what do models know of a benchmark, or of any data?"""

from __future__ import annotations

import shlex
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from expunge.cli._options import AsJson, Quiet, Seed
from expunge.cli._out import out_path, resumable

if TYPE_CHECKING:
    from expunge.workflows.evaluate import EvaluationPlan


def evaluate(
    models: Annotated[list[str], typer.Argument(help="Embedded names, folders, .gguf files or hub ids.")],
    suite: Annotated[
        str | None,
        typer.Option(help="Suite (`expunge list suites`), optionally a variant (tofu:forget05), or a TOML file."),
    ] = None,
    folder: Annotated[str | None, typer.Option(help="Local copy of the suite's data, instead of the hub.")] = None,
    data: Annotated[
        list[str] | None,
        typer.Option(
            metavar="ROLE=DATA",
            help="E.g. forget=facts.jsonl; repeatable. Default without --suite and --lm-eval: the bundled demo people.",
        ),
    ] = None,
    reference: Annotated[
        str | None, typer.Option(help="Model that never saw the forget rows, or its file from `expunge import-ou`.")
    ] = None,
    original: Annotated[
        str | None, typer.Option(help="Model before unlearning; similarity compares with its answers.")
    ] = None,
    whitebox: Annotated[
        str | None,
        typer.Option(help="Comma-separated names of `expunge list whitebox`; needs --original and --reference."),
    ] = None,
    depth: Annotated[str | None, typer.Option(hidden=True, help="Old name of --whitebox.")] = None,
    lm_eval: Annotated[
        str | None,
        typer.Option(help="Comma-separated tasks of lm-eval (pip install 'expunge[lm-eval]'), e.g. wmdp_bio,mmlu."),
    ] = None,
    template: Annotated[
        str | None, typer.Option(help="Prompt format: chat or plain. Default: the suite's format, or chat.")
    ] = None,
    samples: Annotated[int | None, typer.Option(min=0, help="Sampled answers per forget question.")] = None,
    max_new_tokens: Annotated[int | None, typer.Option(min=1, help="Token limit of generated answers.")] = None,
    seed: Seed = 0,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", help="Any option of `evaluate` or `model`, e.g. evaluate.options.METRIC.KEY=VALUE."),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(parser=out_path, metavar="PATH", help="New directory for records, tables and per-row scores."),
    ] = None,
    show_text: Annotated[bool, typer.Option("--show-text", help="Keep all text in items.parquet.")] = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Score models on a benchmark or on your own data.

    Computes every metric on every set, with confidence intervals.
    """
    from expunge.cli._console import console, print_record, print_warnings, progress_for, quiet_libraries
    from expunge.cli._early import check_model
    from expunge.core import catalog
    from expunge.core.errors import UserError
    from expunge.core.output_dir import check_folder, claimed
    from expunge.core.records import EVALUATION_FILE

    if suite is not None and data:
        raise UserError("--data: a suite names its own data; leave one of the two out")
    if folder is not None and suite is None:
        raise UserError("--folder: only a suite has data that a folder can replace")
    if folder is not None and not folder.strip():
        raise UserError("--folder: names no folder")
    if template not in (None, "chat", "plain"):
        raise UserError(f"--template: 'chat' or 'plain', got '{template}'")
    if out is not None:
        check_folder(out)
    asked = {"samples": samples, "max_new_tokens": max_new_tokens}
    tables = _tables(settings or (), asked, {"template": template})
    if depth is not None:
        typer.echo(
            "warning: --depth is now called --whitebox; the old name will be removed in the next release", err=True
        )
    tasks, measures = _names(lm_eval, "--lm-eval"), _names(whitebox or depth, "--whitebox")
    data = data or ([] if tasks else None)
    if suite is None:
        _check_data(data, tables)
    elif not Path(suite).is_file():
        catalog.find(catalog.SUITES, suite if suite.endswith(".toml") else suite.partition(":")[0], "--suite")
    for model in models:
        check_model(model)

    from expunge.reports.evaluation import CSV_FILE, TABLE_FILE, print_evaluation, warnings_of
    from expunge.workflows.evaluate import check_out, evaluate_models, is_first_process, write_results

    if out is not None:
        check_out(out)
    plan = _suite_plan(suite, folder, tables, seed) if suite is not None else _data_plan(data, tables, seed)
    quiet_libraries()
    owned = claimed(out) if out is not None and is_first_process() else nullcontext()
    with resumable(), owned:
        results = evaluate_models(
            models,
            plan,
            original=original,
            reference=reference,
            whitebox=measures,
            lm_eval=tasks,
            command=shlex.join(["expunge", *sys.argv[1:]]),
            progress=progress_for(quiet),
        )
        if not is_first_process():
            return
        if out is not None:
            write_results(results, out, show_text)
    records = [result.record for result in results]
    if as_json:
        print_record(records[0] if len(records) == 1 else records)
        return
    print_evaluation(records, console())
    print_warnings(warnings_of(records), console())
    if out is not None:
        console().paths(table=out / TABLE_FILE, scores=out / CSV_FILE, record=out / EVALUATION_FILE)


def _names(text: str | None, option: str) -> list[str]:
    from expunge.core.errors import UserError

    if text is None:
        return []
    names = [name.strip() for name in text.split(",")]
    if not all(names):
        raise UserError(f"{option} {text!r}: write names with commas between them")
    return names


def _tables(settings: list[str] | tuple[()], *given: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The `evaluate` and `model` tables that the command line asks for."""
    from expunge.config import read_settings
    from expunge.core.errors import UserError

    names = ("evaluate", "model")
    known = [{key: value for key, value in some.items() if value is not None} for some in given]
    tables = read_settings(settings, dict(zip(names, known, strict=True)))
    if unknown := sorted(set(tables) - set(names)):
        raise UserError(f"--set: only options of 'evaluate' and 'model' can be set here, got '{unknown[0]}'")
    if isinstance(tables["model"], dict) and "name" in tables["model"]:
        raise UserError("--set model.name: models are arguments of this command, not options")
    for name in names:
        if not isinstance(tables[name], dict):
            raise UserError(f"--set: '{name}' is a table of options, got {tables[name]!r}")
    return tables


def _suite_plan(name: str, folder: str | None, tables: dict[str, dict[str, Any]], seed: int) -> EvaluationPlan:
    from expunge.evaluate.suite import load_suite
    from expunge.workflows.evaluate import suite_plan

    return suite_plan(load_suite(name, folder or "", tables), name, seed)


def _data_plan(data: list[str] | None, tables: dict[str, dict[str, Any]], seed: int) -> EvaluationPlan:
    from expunge.core.validation import check
    from expunge.evaluate.config import EvaluateConfig
    from expunge.workflows.evaluate import data_plan

    return data_plan(_splits(data), check(EvaluateConfig, tables["evaluate"], "evaluate"), seed, tables["model"])


def _splits(data: list[str] | None) -> dict[str, str]:
    from expunge.cli._data import named_data
    from expunge.core.schema import SPLITS

    people = [f"{name}=people:{name}" for name in SPLITS if name != "holdout"]
    return named_data(people if data is None else data, SPLITS)


def _check_data(data: list[str] | None, tables: dict[str, dict[str, Any]]) -> None:
    """Refuse what can be refused before torch is imported."""
    from expunge.cli._early import check_measurement, check_named_data
    from expunge.core.validation import check
    from expunge.evaluate.config import EvaluateConfig

    check_named_data(_splits(data))
    check_measurement(check(EvaluateConfig, tables["evaluate"], "evaluate"))
