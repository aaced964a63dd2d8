"""Collects the evidence of one model in one pass: each prompt once, and only what some metric needs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Any, TypeVar

import torch
from accelerate import PartialState
from accelerate.utils import broadcast_object_list, gather_object

from expunge.core.progress import SILENT, Bar, Progress
from expunge.data.encode import Encoder
from expunge.data.example import Example
from expunge.data.splits import Splits
from expunge.evaluate.base import Item, Need
from expunge.evaluate.config import EvaluateConfig
from expunge.evaluate.evidence_cache import EvidenceMemory
from expunge.evaluate.evidence_plan import Ask, Request, ask_batch, requests
from expunge.models.base import LanguageModel
from expunge.models.batches import in_batches
from expunge.models.gradients import answer_gradient_norms

Evidence = dict[str, list[Item]]
"""Name of a set -> the evidence about each row, in order."""

Row = TypeVar("Row")

_GRADED: frozenset[Need] = frozenset({"gradient_norms", "whole_gradient_norms"})
_UNIT = 64
"""Rows that share a cache entry."""
_ROUND = 256
"""Rows whose prompts are sorted into batches together; evidence is cached after each round."""


@dataclass(frozen=True)
class _Unit:
    """Rows of a set that share a cache entry."""

    name: str
    start: int
    ask: Ask
    items: list[Item]
    """Without evidence."""
    requests: list[Request]

    @property
    def layout(self) -> str:
        """Units of one layout share batches; raw prompts of a set may share a prefix that other sets lack."""
        return self.name if any(row.prompt for row in self.ask.rows) else ""


def sample_rows(splits: Splits, max_rows: int, seed: int) -> dict[str, list[Example]]:
    """The rows of each split that are measured: all, or a seeded sample of a large one, in their order."""
    return {name: sampled(rows, max_rows, seed) for name, rows in splits.named()}


def sampled(rows: Sequence[Row], max_rows: int, seed: int) -> list[Row]:
    """All rows, or a seeded sample of this many, in their order."""
    generator = torch.Generator().manual_seed(seed)
    kept = sorted(torch.randperm(len(rows), generator=generator)[:max_rows].tolist())
    return [rows[index] for index in kept]


def collect(
    model: LanguageModel,
    rows: Mapping[str, Sequence[Example]],
    needs: frozenset[Need],
    config: EvaluateConfig,
    seed: int,
    progress: Progress = SILENT,
    label: str = "measuring",
) -> Evidence:
    """Collect the same evidence about the rows of every split.

    Args:
        model: any model.
        rows: role -> rows.
        needs: union of the metrics' needs.
        config: lengths, samples, batch size.
        seed: of the sampled answers.
        progress: where to report.
        label: of the progress bar.

    Returns:
        One item per row, in order.
    """
    asks = {name: Ask(some, name, needs, config) for name, some in rows.items()}  # type: ignore[arg-type]
    return collect_sets(model, asks, seed, progress, label)


def collect_sets(
    model: LanguageModel,
    asks: Mapping[str, Ask],
    seed: int,
    progress: Progress = SILENT,
    label: str = "measuring",
    memory: EvidenceMemory | None = None,
) -> Evidence:
    """Collect the evidence that the metrics need.

    Under `accelerate launch` the processes share the rows, and each returns all the evidence.

    Args:
        model: any model.
        asks: name of a set -> its rows and the evidence to collect.
        seed: of the sampled answers.
        progress: where to report.
        label: of the progress bar.
        memory: cache of the model's evidence.

    Returns:
        One item per row, in order.
    """
    evidence = {name: [_empty(row, ask.config, model.encoder) for row in ask.rows] for name, ask in asks.items()}
    units = [unit for name, ask in asks.items() for unit in _units(name, ask, evidence[name], seed, model.encoder)]
    missing = []
    for unit, found in zip(units, _remembered(units, memory), strict=True):
        if found is None:
            missing.append(unit)
        else:
            evidence[unit.name][unit.start : unit.start + len(found)] = found
    with model.evaluating(), progress.bar(label, sum(len(unit.requests) for unit in missing)) as bar:
        for units_together in _rounds(missing):
            for unit, items in zip(units_together, _collected(model, units_together, bar), strict=True):
                evidence[unit.name][unit.start : unit.start + len(items)] = items
                if memory is not None and PartialState().is_main_process:
                    memory.keep(unit.ask, unit.requests, items)
    return evidence


def _units(name: str, ask: Ask, items: list[Item], seed: int, encoder: Encoder) -> Iterator[_Unit]:
    for start in range(0, len(ask.rows), _UNIT):
        rows = ask.rows[start : start + _UNIT]
        asked = [one for row, example in enumerate(rows) for one in requests(row, example, ask, seed, encoder)]
        if asked or _GRADED & ask.needs:
            yield _Unit(name, start, replace(ask, rows=rows), items[start : start + _UNIT], asked)


def _remembered(units: Sequence[_Unit], memory: EvidenceMemory | None) -> list[list[Item] | None]:
    """The cached evidence of each unit, as the first process finds it."""
    found = [None if memory is None else memory.find(unit.ask, unit.requests, unit.items) for unit in units]
    return broadcast_object_list(found) if PartialState().num_processes > 1 else found


def _rounds(units: Sequence[_Unit]) -> Iterator[list[_Unit]]:
    """Units of one layout, about `_ROUND` rows at a time."""
    for _, alike in groupby(sorted(units, key=lambda unit: unit.layout), key=lambda unit: unit.layout):
        some: list[_Unit] = []
        for unit in alike:
            some.append(unit)
            if sum(len(one.ask.rows) for one in some) >= _ROUND:
                yield some
                some = []
        if some:
            yield some


def _collected(model: LanguageModel, units: Sequence[_Unit], bar: Bar) -> list[list[Item]]:
    """The items of some units; their requests share batches and are divided among the processes."""
    state = PartialState()
    flat = [(place, request) for place, unit in enumerate(units) for request in unit.requests]
    mine = flat[state.process_index :: state.num_processes]
    found: list[tuple[int, int, dict[str, Any]]] = []
    budget = max(unit.ask.config.token_budget for unit in units)

    def ask(indices: Sequence[int], size: int) -> None:
        batch = [mine[index] for index in indices]
        answers = ask_batch(model, [request for _, request in batch], size)
        found.extend((place, request.row, one) for (place, request), one in zip(batch, answers, strict=True))
        bar.advance(len(batch))

    with torch.inference_mode(), model.reading():
        lengths = [len(request.prompt) for _, request in mine]
        in_batches(model.budget, model.device, "generate", lengths, ask, most=budget)
    graded = [
        (place, row)
        for place, unit in enumerate(units)
        if _GRADED & unit.ask.needs
        for row in range(len(unit.ask.rows))
    ]
    for place, row in graded[state.process_index :: state.num_processes]:
        whole = "whole_gradient_norms" in units[place].ask.needs
        norms = _gradient_norms(model, units[place].ask.rows[row], whole)
        found.append((place, row, {"gradient_norms": norms}))
    if state.num_processes > 1:
        found = gather_object(found)
    items = [list(unit.items) for unit in units]
    for place, row, fields in found:
        items[place][row] = replace(items[place][row], **fields)
    return items


def _gradient_norms(model: LanguageModel, row: Example, whole: bool) -> dict[str, float]:
    """Gradient norms of the loss of the answer's text, or of all its labels; documents have no end token."""
    encoded = model.encoder.example(row)
    if row.text is None and not whole and len(encoded.labels) > 1:
        encoded = replace(encoded, ids=encoded.ids[:-1])
    return answer_gradient_norms(model, encoded)


def with_original(evidence: Evidence, original: Evidence) -> Evidence:
    """The evidence with the original model's greedy answers to the same rows."""
    return {
        name: [replace(item, original_greedy=before.greedy) for item, before in zip(items, original[name], strict=True)]
        for name, items in evidence.items()
    }


def with_reference(evidence: Evidence, reference: Evidence) -> Evidence:
    """The evidence with that of the retrained reference about the same rows."""
    return {
        name: [replace(item, reference=other) for item, other in zip(items, reference[name], strict=True)]
        for name, items in evidence.items()
    }


def _empty(example: Example, config: EvaluateConfig, encoder: Encoder) -> Item:
    item = Item(example, match=config.match)
    if example.text is not None:
        labels = encoder.document(example.text, example.id, config.document_prompt).labels
        item = replace(item, continuation=encoder.decode(labels))
    text = example.answer or item.continuation
    if text is None or config.reference_tokens is None:
        return item
    stored, *accepted = (
        encoder.first_tokens(one, config.reference_tokens) for one in (text, *example.accepted_answers)
    )
    return replace(item, stored=stored, accepted=tuple(accepted))
