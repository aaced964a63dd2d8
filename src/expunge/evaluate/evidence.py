"""One pass over the data for one model: each prompt is encoded once and serves every answer, greedy or sampled."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from expunge.core.progress import SILENT, Progress
from expunge.data.batch import by_length
from expunge.data.encode import DOCUMENT_PROMPT, Encoder
from expunge.data.example import Example, Splits
from expunge.evaluate.base import EvaluateConfig, Item, Need
from expunge.models.base import LanguageModel
from expunge.models.generate import Prefix, Scored, decode, encode_prompts, score_answers

Evidence = dict[str, list[Item]]
"""Split name -> what the model said about each row, in order."""


@dataclass
class Request:
    """One prompt, and everything that is asked of the model after it."""

    split: str
    row: int
    prompt: tuple[int, ...]
    answers: list[tuple[Need, tuple[int, ...]]] = field(default_factory=list)
    greedy: Need | None = None
    seeds: list[str] = field(default_factory=list)
    """One string for each sample to draw."""


def sample_rows(splits: Splits, max_rows: int, seed: int) -> dict[str, list[Example]]:
    """The rows that are measured: all, or a seeded sample of a large split, in their order."""
    chosen: dict[str, list[Example]] = {}
    for name, rows in splits.named():
        generator = torch.Generator().manual_seed(seed)
        kept = sorted(torch.randperm(len(rows), generator=generator)[:max_rows].tolist())
        chosen[name] = [rows[index] for index in kept]
    return chosen


def collect(
    model: LanguageModel,
    rows: dict[str, list[Example]],
    needs: frozenset[Need],
    config: EvaluateConfig,
    seed: int,
    progress: Progress = SILENT,
    label: str = "measuring",
) -> Evidence:
    """Ask a model everything that the metrics need of it, and nothing else.

    Args:
        model: any model.
        rows: split name -> rows.
        needs: union of the metrics' needs.
        config: lengths, samples, batch size.
        seed: of the sampled answers.
        progress: where to report.
        label: what to call this pass there.

    Returns:
        One item a row, in order.
    """
    evidence = {split: [_blank(example, model.encoder) for example in examples] for split, examples in rows.items()}
    requests = [
        request
        for split, examples in rows.items()
        for row, example in enumerate(examples)
        for request in _requests(split, row, example, needs, config, seed, model.encoder)
        if request.answers or request.greedy or request.seeds
    ]
    with model.evaluating(), progress.bar(label, len(requests)) as bar, torch.inference_mode():
        for indices in by_length([len(request.prompt) for request in requests], config.token_budget):
            batch = [requests[index] for index in indices]
            for request, found in zip(batch, _ask(model, batch, config), strict=True):
                item = evidence[request.split][request.row]
                evidence[request.split][request.row] = replace(item, **found)
            bar.advance(len(batch))
    return evidence


def with_original(evidence: Evidence, original: Evidence) -> Evidence:
    """The same evidence beside what the original model answered greedily to the same rows."""
    return {
        split: [
            replace(item, original_greedy=before.greedy) for item, before in zip(items, original[split], strict=True)
        ]
        for split, items in evidence.items()
    }


def _blank(example: Example, encoder: Encoder) -> Item:
    if example.text is None:
        return Item(example)
    labels = encoder.document(example.text, example.id, DOCUMENT_PROMPT).labels
    return Item(example, continuation=encoder.decode(labels))


def _requests(
    split: str, row: int, example: Example, needs: frozenset[Need], config: EvaluateConfig, seed: int, encoder: Encoder
) -> list[Request]:
    """The prompts of one row."""
    if example.text is not None:
        document = encoder.document(example.text, example.id, DOCUMENT_PROMPT)
        main = Request(split, row, document.prompt)
        main.answers += [("answer", document.labels)] if "answer" in needs else []
    else:
        assert example.question is not None
        assert example.answer is not None
        main = Request(split, row, encoder.prompt(example.question, example.id))
        texts: list[tuple[Need, str | None]] = [
            ("answer", example.answer),
            ("paraphrased_answer", example.paraphrased_answer),
            *(("perturbed_answer", wrong) for wrong in example.perturbed_answer),
        ]
        main.answers += [
            (need, encoder.answer(example.question, text, example.id).labels)
            for need, text in texts
            if text is not None and need in needs
        ]
    main.greedy = "greedy" if "greedy" in needs else None
    if "samples" in needs and split in config.probe_splits:
        main.seeds = [f"{seed}/{example.id}/{number}" for number in range(config.samples)]
    requests = [main]
    asked_again = "paraphrased_greedy" in needs and split in config.probe_splits
    if example.paraphrased_question is not None and asked_again:
        prompt = encoder.prompt(example.paraphrased_question, example.id)
        requests.append(Request(split, row, prompt, greedy="paraphrased_greedy"))
    return requests


def _ask(model: LanguageModel, batch: Sequence[Request], config: EvaluateConfig) -> list[dict[str, Any]]:
    """Fields of `Item` that a batch of requests fills."""
    prefix = encode_prompts(model, [request.prompt for request in batch])
    found: list[dict[str, Any]] = [{} for _ in batch]
    for row, (need, scored) in _scored(prefix, batch, config.token_budget):
        if need == "perturbed_answer":
            found[row][need] = (*found[row].get(need, ()), scored)
        else:
            found[row][need] = scored
    stop = model.encoder.stop_ids
    sampled = [(row, seed) for row, request in enumerate(batch) for seed in request.seeds]
    width = max(1, config.token_budget // prefix.mask.shape[1])
    for start in range(0, len(sampled), width):
        part = sampled[start : start + width]
        branch = prefix.select(torch.tensor([row for row, _ in part], device=model.device))
        outputs = decode(branch, config.max_new_tokens, stop, [seed for _, seed in part], config.temperature)
        for (row, _), ids in zip(part, outputs, strict=True):
            found[row]["samples"] = (*found[row].get("samples", ()), model.encoder.decode(ids))
    greedy = [row for row, request in enumerate(batch) if request.greedy]
    if greedy:
        branch = prefix.select(torch.tensor(greedy, device=model.device))
        for row, ids in zip(greedy, decode(branch, config.max_new_tokens, stop), strict=True):
            field_name = batch[row].greedy
            assert field_name is not None
            found[row][field_name] = model.encoder.decode(ids)
            if field_name == "greedy":
                found[row]["greedy_ids"] = tuple(ids)
    return found


def _scored(prefix: Prefix, batch: Sequence[Request], token_budget: int) -> list[tuple[int, tuple[Need, Scored]]]:
    """Every answer of a batch, scored in groups of similar length; answers of one row keep their order."""
    flat = [(row, need, ids) for row, request in enumerate(batch) for need, ids in request.answers]
    results: list[Scored | None] = [None] * len(flat)
    width = prefix.mask.shape[1]
    for indices in by_length([width + len(ids) for _, _, ids in flat], 2 * token_budget):
        part = [flat[index] for index in indices]
        scores = score_answers(prefix, [row for row, _, _ in part], [ids for _, _, ids in part])
        for index, score in zip(indices, scores, strict=True):
            results[index] = score
    return [(row, (need, score)) for (row, need, _), score in zip(flat, results, strict=True) if score is not None]
