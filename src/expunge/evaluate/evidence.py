"""One pass over the data for one model: nothing is asked twice, and nothing that no metric needs."""

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
"""Name of a set -> what the model said about each row, in order."""

Row = TypeVar("Row")

_GRADED: frozenset[Need] = frozenset({"gradient_norms", "whole_gradient_norms"})
_UNIT = 64
"""Rows that are kept on disk together."""
_ROUND = 256
"""Rows whose prompts are sorted into batches together; what is found is kept after each round."""


@dataclass(frozen=True)
class _Unit:
    """Some rows of a set, as they are kept."""

    name: str
    start: int
    ask: Ask
    blank: list[Item]
    requests: list[Request]

    @property
    def layout(self) -> str:
        """Units of one layout share batches; a set of raw prompts may begin with examples that only it shares."""
        return self.name if any(row.prompt for row in self.ask.rows) else ""


def sample_rows(splits: Splits, max_rows: int, seed: int) -> dict[str, list[Example]]:
    """The rows that are measured: all, or a seeded sample of a large split, in their order."""
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
    """Ask the same about the rows of every split.

    Args:
        model: any model.
        rows: role -> rows.
        needs: union of the metrics' needs.
        config: lengths, samples, batch size.
        seed: of the sampled answers.
        progress: where to report.
        label: what to call this pass there.

    Returns:
        One item a row, in order.
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
    """Ask a model everything that the metrics need of it, and nothing else.

    Under `accelerate launch` the processes share the rows, and all of them get all the evidence.

    Args:
        model: any model.
        asks: name of a set -> its rows, and what is asked about them.
        seed: of the sampled answers.
        progress: where to report.
        label: what to call this pass there.
        memory: where evidence of the same model may lie, and is kept.

    Returns:
        One item a row, in order.
    """
    evidence = {name: [_blank(row, ask.config, model.encoder) for row in ask.rows] for name, ask in asks.items()}
    units = [unit for name, ask in asks.items() for unit in _units(name, ask, evidence[name], seed, model.encoder)]
    missing = []
    for unit, found in zip(units, _remembered(units, memory), strict=True):
        if found is None:
            missing.append(unit)
        else:
            evidence[unit.name][unit.start : unit.start + len(found)] = found
    with model.evaluating(), progress.bar(label, sum(len(unit.requests) for unit in missing)) as bar:
        for units_together in _rounds(missing):
            for unit, items in zip(units_together, _carried_out(model, units_together, bar), strict=True):
                evidence[unit.name][unit.start : unit.start + len(items)] = items
                if memory is not None and PartialState().is_main_process:
                    memory.keep(unit.ask, unit.requests, items)
    return evidence


def _units(name: str, ask: Ask, blank: list[Item], seed: int, encoder: Encoder) -> Iterator[_Unit]:
    for start in range(0, len(ask.rows), _UNIT):
        rows = ask.rows[start : start + _UNIT]
        asked = [one for row, example in enumerate(rows) for one in requests(row, example, ask, seed, encoder)]
        if asked or _GRADED & ask.needs:
            yield _Unit(name, start, replace(ask, rows=rows), blank[start : start + _UNIT], asked)


def _remembered(units: Sequence[_Unit], memory: EvidenceMemory | None) -> list[list[Item] | None]:
    """What was kept of each unit, as the first process finds it."""
    found = [None if memory is None else memory.find(unit.ask, unit.requests, unit.blank) for unit in units]
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


def _carried_out(model: LanguageModel, units: Sequence[_Unit], bar: Bar) -> list[list[Item]]:
    """The items of some units, whose requests share batches and are shared out among the processes."""
    state = PartialState()
    flat = [(place, request) for place, unit in enumerate(units) for request in unit.requests]
    mine = flat[state.process_index :: state.num_processes]
    said: list[tuple[int, int, dict[str, Any]]] = []
    budget = max(unit.ask.config.token_budget for unit in units)

    def ask(indices: Sequence[int], size: int) -> None:
        batch = [mine[index] for index in indices]
        answers = ask_batch(model, [request for _, request in batch], size)
        said.extend((place, request.row, one) for (place, request), one in zip(batch, answers, strict=True))
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
        said.append((place, row, {"gradient_norms": norms}))
    if state.num_processes > 1:
        said = gather_object(said)
    items = [list(unit.blank) for unit in units]
    for place, row, fields in said:
        items[place][row] = replace(items[place][row], **fields)
    return items


def _gradient_norms(model: LanguageModel, row: Example, whole: bool) -> dict[str, float]:
    """Of the loss of the answer's text, or of all its labels; no document has an end token."""
    encoded = model.encoder.example(row)
    if row.text is None and not whole and len(encoded.labels) > 1:
        encoded = replace(encoded, ids=encoded.ids[:-1])
    return answer_gradient_norms(model, encoded)


def with_original(evidence: Evidence, original: Evidence) -> Evidence:
    """The same evidence beside what the original model answered greedily to the same rows."""
    return {
        name: [replace(item, original_greedy=before.greedy) for item, before in zip(items, original[name], strict=True)]
        for name, items in evidence.items()
    }


def with_reference(evidence: Evidence, reference: Evidence) -> Evidence:
    """The same evidence beside what the retrained reference said about the same rows."""
    return {
        name: [replace(item, reference=other) for item, other in zip(items, reference[name], strict=True)]
        for name, items in evidence.items()
    }


def _blank(example: Example, config: EvaluateConfig, encoder: Encoder) -> Item:
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
