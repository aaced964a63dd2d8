"""Attacks on a run or a model: find models and rows, check them, attack, record, show."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, get_args

from expunge.attacks.base import Attack, AttackContext
from expunge.attacks.config import AttackConfig
from expunge.attacks.engine import attack, attack_names, load_attacks, new_record
from expunge.core.attack_record import REFUSAL, RETRAINED, Access, AttackResult, Robustness
from expunge.core.errors import UserError, near
from expunge.core.files import clear_leftovers, refuse_link, write_atomic
from expunge.core.output_dir import adding, check_folder
from expunge.core.progress import SILENT, Progress
from expunge.core.provenance import provenance
from expunge.core.records import ATTACKS_FILE, MODEL_FOLDER, AttackRecord, DataPrint, is_run, read_attacks, read_record
from expunge.core.report_section import Diagnosis
from expunge.core.schema import SPLITS
from expunge.core.validation import check
from expunge.data.splits import Splits
from expunge.data.summary import say_all
from expunge.evaluate.answer_kinds import Labeller
from expunge.evaluate.config import EvaluateConfig
from expunge.evaluate.evidence import sampled
from expunge.evaluate.sets import sets_of
from expunge.evaluate.validity import check_keywords, plain_warnings, row_warnings
from expunge.inputs import prints_of
from expunge.models.base import LanguageModel
from expunge.models.config import ModelConfig
from expunge.models.load import load_model
from expunge.models.model_name import check_model_name
from expunge.models.save import CARD
from expunge.models.stored_weights import stored_weights
from expunge.targets import Target, load_splits, read_target
from expunge.workflows.run_directory import write_report

PAGE_FILE = "attacks.html"
ACCESS = get_args(Access)
_GROUPS = ("default", "all")
_SAME = ("sha256", "data", "rows", "asked", "seed")
"""Fields that must match before results are merged into one record."""


def attack_target(
    subject: str,
    which: str = "default",
    *,
    options: Mapping[str, Any] | None = None,
    evaluate: Mapping[str, Any] | None = None,
    data: Mapping[str, str] | None = None,
    original: str | None = None,
    reference: str | None = None,
    refusal: str | None = None,
    access: str = "weights",
    budget: float | None = None,
    seed: int | None = None,
    template: str | None = None,
    out: Path | None = None,
    command: str = "",
    progress: Progress = SILENT,
) -> tuple[AttackRecord, Path]:
    """Attack a finished run's model, or any model; what an earlier call did in the same place is kept.

    Args:
        subject: directory of a finished run; or embedded name, folder, .gguf file or hub id of a model.
        which: names with commas between them; `default`: those that need prompts only; `all`.
        options: keys of `[attacks]` besides names and budget: NAME = {...}, max_rows.
        evaluate: options of `[evaluate]` that differ from the run's own.
        data: split -> data that replaces the run's. Default for a model: the shipped people.
        original: the model before unlearning. Default: the run's own.
        reference: a model that never saw the forget rows: every attack is carried out on it too.
        refusal: a model that was only taught to refuse: the same.
        access: the adversary's access to the model: prompts, logits or weights.
        budget: seconds for everything. Default: no limit.
        seed: of all random draws. Default: the run's own, or 0.
        template: layout of the questions. Default: the run's own, or chat.
        out: folder of the record. Default: the run's directory, or the current one.
        command: the command line, for the record.
        progress: where to report.

    Returns:
        The record, and its path.

    Raises:
        UserError: bad input, or a folder that holds attacks on something else.
    """
    if budget is not None and budget <= 0:
        raise UserError(f"--budget {budget:g}: must be positive; leave it out for no limit")
    if "://" in subject:
        raise UserError(f"'{subject}' is an endpoint; attacks need the model itself: a run, a folder or a name")
    if access not in ACCESS:
        raise UserError(f"--access: no '{access}'{near(access, ACCESS)}")
    data = data or {}
    wanted = _names(which)
    own_run = out is None and is_run(Path(subject))
    folder = Path(subject) if own_run else out or Path()
    if own_run:
        refuse_link(folder / MODEL_FOLDER)  # its model card is written anew
    check_folder(folder)
    path = folder / ATTACKS_FILE
    target = read_target(subject, data, SPLITS, "unlearned", template)
    config = _config(target.attacks, options or {})
    requested = load_attacks(wanted, config.options)
    models = _models(target, {"original": original, RETRAINED: reference, REFUSAL: refusal})
    attacks, left_out = _possible(requested, access, models, which in _GROUPS)
    rows = load_splits(target, data)
    judging = check(EvaluateConfig, {**target.evaluate.model_dump(mode="json"), **(evaluate or {})}, "evaluate")
    warnings = _row_warnings(rows, judging, models["unlearned"].system_prompt, progress)

    models = _dated(models, _earlier_date(path))
    model = load_model(models["unlearned"], progress)
    models = _dated(models, model.encoder.date)
    loaders = {name: partial(load_model, one, progress) for name, one in models.items()}
    context = _context(target, model, rows, judging, target.seed if seed is None else seed, config.max_rows)
    context = replace(
        context,
        load_original=loaders.get("original"),
        read_original=partial(stored_weights, models["original"]) if "original" in models else None,
        load_retrained=loaders.get(RETRAINED),
        progress=progress,
    )
    prints = _prints(context.splits, {name: text for name, text in target.expected.items() if name not in data})
    names = {name: one.name for name, one in models.items()}
    sha256 = None if own_run else model.fingerprint()
    record = new_record(subject, names, sha256, prints, context, provenance(command, *model.machine))
    controls = {name: loaders[name] for name in (RETRAINED, REFUSAL) if name in loaders}
    done = _kept(path, _earlier(path, record), attacks, controls)
    say_all(progress, rows.understood)
    if "original" in loaders:
        original_plain = replace(context, model=loaders["original"]()).ask_directly("the original")
        context = replace(context, original_plain=original_plain)
        warnings += plain_warnings(original_plain)
    keep = partial(_keep, path, record.model_copy(update={"warnings": warnings}), left_out, {one.name for one in done})
    return keep(attack(attacks, context, controls=controls, budget=budget, done=done, keep=keep)), path


def _row_warnings(rows: Splits, config: EvaluateConfig, system_prompt: str | None, progress: Progress) -> list[str]:
    """Warnings about the forget rows, which need no model.

    Raises:
        UserError: no answer holds any of its row's keywords.
    """
    sets = sets_of(rows, config)
    check_keywords(sets)
    warnings = row_warnings({"forget": sets["forget"]}, system_prompt)
    for warning in warnings:
        progress.say(f"warning: {warning}")
    return warnings


def _context(
    target: Target, model: LanguageModel, rows: Splits, config: EvaluateConfig, seed: int, max_rows: int
) -> AttackContext:
    """The model and the rows that attacks get; without loaders of other models."""
    pieces: dict[str, Any] = {name: target.documents.rows(model.encoder, some) for name, some in rows.named()}
    splits = replace(rows, **pieces)
    return AttackContext(
        model,
        splits,
        tuple(sampled(sampled(splits.forget, config.max_rows, seed), max_rows, seed)),
        Labeller(config.kinds),
        config,
        seed,
        tensors=target.tensors,
        steered=target.steered,
        trained=target.trained,
    )


def _keep(
    path: Path, record: AttackRecord, left_out: Sequence[AttackResult], done: Collection[str], card: Robustness
) -> AttackRecord:
    """Write new attacks beside those that other processes have written meanwhile.

    Args:
        path: the record's file.
        record: the record without any attack.
        left_out: attacks that cannot be carried out here.
        done: names of the attacks that an earlier call carried out.
        card: the attacks of this call, and those.
    """
    with adding(path.parent):
        earlier = _earlier(path, record)
        old = {one.name: one for one in earlier.robustness.attacks} if earlier else {}
        new = {one.name: one for one in card.attacks if one.name not in done}
        lacking = {one.name: one for one in left_out if one.name not in old}
        attacked = {**lacking, **old, **new}
        order = dict.fromkeys([*old, *new, *lacking])
        controls = {**(earlier.robustness.controls if earlier else {}), **card.controls}
        union = card.model_copy(update={"attacks": [attacked[name] for name in order], "controls": controls})
        models = {**(earlier.models if earlier else {}), **record.models}
        whole = record.model_copy(update={"models": models, "robustness": union})
        write_atomic(path, whole.model_dump_json(indent=1))
    return whole


def read_card(folder: Path) -> Robustness:
    """The robustness card of a run's directory, or of a folder with attacks on a model.

    Raises:
        UserError: nothing there was attacked.
    """
    if not (folder / ATTACKS_FILE).is_file():
        raise UserError(f"{folder}: no {ATTACKS_FILE} here; try: expunge attack {folder}")
    return read_attacks(folder / ATTACKS_FILE).robustness


def broken(card: Robustness, which: str | None = None) -> list[AttackResult]:
    """Attacks that an unexpected error ended.

    Args:
        card: what was attacked.
        which: names, as for `attack_target`, of those to check; default: all.
    """
    names = None if which is None else _names(which)
    return [one for one in card.attacks if one.traceback and (names is None or one.name in names)]


def show(record: AttackRecord, path: Path) -> Path:
    """Make the page of a record, or that of the run in whose directory it lies, with the run's model card; its path."""
    from expunge.reports.model_card import model_card
    from expunge.reports.robustness import robustness_section
    from expunge.reports.section import page

    folder = path.parent
    if is_run(folder):
        with adding(folder):
            clear_leftovers(folder / MODEL_FOLDER)
            write_atomic(folder / MODEL_FOLDER / CARD, model_card(read_record(folder)))
        return write_report(folder)
    shown = Diagnosis(
        diagnostic="attacks",
        subject=record.subject,
        models=record.models,
        data=record.data,
        options={one.name: one.options for one in record.robustness.attacks},
        seed=record.seed,
        provenance=record.provenance,
        seconds=record.robustness.seconds,
        finding=robustness_section(record.robustness, record.warnings),
    )
    with adding(folder):
        write_atomic(folder / PAGE_FILE, page(shown))
    return folder / PAGE_FILE


def _dated(models: Mapping[str, ModelConfig], date: str | None) -> dict[str, ModelConfig]:
    """The models with one date for all of them, where a chat template sees one."""
    return {name: model.dated(date) for name, model in models.items()}


def _earlier_date(path: Path) -> str | None:
    """The date that attacks on the same subject saw before, if they saw one."""
    date = read_attacks(path).asked.get("date") if path.is_file() else None
    return None if date is None else str(date)


def _config(own: AttackConfig, given: Mapping[str, Any]) -> AttackConfig:
    """The attack options of the run, overridden by the given ones."""
    config = check(AttackConfig, given, "attacks")
    options = {**own.options, **{name: {**own.options.get(name, {}), **some} for name, some in config.options.items()}}
    return config.model_copy(
        update={"options": options, "max_rows": config.max_rows if "max_rows" in given else own.max_rows}
    )


def _names(which: str) -> list[str]:
    if which in _GROUPS:
        return attack_names(only_default=which == "default")
    names = list(dict.fromkeys(name.strip() for name in which.split(",") if name.strip()))
    if not names:
        raise UserError(f"--attack: name one{near('', attack_names())}")
    return names


def _possible(
    asked: Sequence[Attack], access: str, models: Mapping[str, ModelConfig], is_group: bool
) -> tuple[list[Attack], list[AttackResult]]:
    """Attacks that can be carried out. Others are recorded as left out if they are of a group, and refused if named."""
    possible, left_out = [], []
    for one in asked:
        lack = _lack(one, access, models)
        if lack is None:
            possible.append(one)
        elif is_group:
            left_out.append(
                AttackResult(name=one.name, access=one.access, options=one.config.model_dump(mode="json"), failed=lack)
            )
        else:
            raise UserError(f"{one.name}: {lack}")
    return possible, left_out


def _lack(one: Attack, access: str, models: Mapping[str, ModelConfig]) -> str | None:
    """The requirement of an attack that is not met, if any."""
    if ACCESS.index(one.access) > ACCESS.index(access):
        return f"it needs {one.access}, and --access is {access}"
    if one.needs_original and "original" not in models:
        return "it needs the original model: --original MODEL"
    if one.needs_retrained and RETRAINED not in models:
        return "it needs a model that never saw the forget rows: --reference MODEL"
    return None


def _models(found: Target, given: Mapping[str, str | None]) -> dict[str, ModelConfig]:
    """Every model that takes part; the original that a run started from is left out when it is gone.

    Raises:
        UserError: one that was named leads nowhere.
    """
    like = found.models["unlearned"]
    named = {name: like.model_copy(update={"name": text, "revision": None}) for name, text in given.items() if text}
    for name, model in {"unlearned": like, **named}.items():
        check_model_name(model.name, f"{name} model")
    if "original" in found.models and "original" not in named:
        with suppress(UserError):
            check_model_name(found.models["original"].name)
            named["original"] = found.models["original"]
    return {"unlearned": like, **named}


def _prints(splits: Splits, expected: Mapping[str, str]) -> dict[str, DataPrint]:
    """Sources and hashes of the rows.

    Raises:
        UserError: they are not those of the run.
    """
    prints = prints_of(splits)
    for name, sha256 in expected.items():
        if name not in prints or prints[name].sha256 != sha256:
            source = splits.sources.get(name, "nothing")
            raise UserError(f"data.{name}: '{source}' does not hold the rows of the run; name them: --data {name}=...")
    return prints


def _earlier(path: Path, now: AttackRecord) -> AttackRecord | None:
    """The record of earlier calls, or of the run itself.

    Raises:
        UserError: attacks on something else.
    """
    if not path.is_file():
        return None
    before = read_attacks(path)
    different = [key for key in _SAME if getattr(before, key) != getattr(now, key)]
    different += [
        name
        for name in (RETRAINED, REFUSAL)
        if before.models.get(name, now.models.get(name)) != now.models.get(name, before.models.get(name))
    ]
    if different:
        raise UserError(f"{path}: holds attacks under other conditions ({', '.join(different)}); choose another --out")
    return before


def _kept(
    path: Path, before: AttackRecord | None, attacks: Sequence[Attack], controls: Collection[str]
) -> list[AttackResult]:
    """Earlier attacks that stay as they are; requested ones that broke off, or lack a control, are carried out again.

    Raises:
        UserError: a requested attack was carried out with other options.
    """
    requested = {one.name: one for one in attacks}
    kept = []
    for old in before.robustness.attacks if before else ():
        again = requested.get(old.name)
        whole = not old.failed and not old.cut and all(set(controls) <= set(one.controls) for one in old.variants)
        if again is not None and whole and again.config.model_dump(mode="json") != old.options:
            raise UserError(f"{path}: {old.name} was carried out there with other options; choose another --out")
        if again is None or whole:
            kept.append(old)
    return kept
