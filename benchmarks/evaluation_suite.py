"""Evaluation against the plain way: `python benchmarks/evaluation_suite.py ROWS_FOLDER [MODEL] [ROWS]`.

The plain way computes every metric by itself: full logits over every position of unsorted batches of 32 for each
metric that is teacher-forced, and transformers' own `generate` of 64 tokens over unsorted, left-padded batches.
ROWS_FOLDER holds JSONL files of TOFU rows named forget, retain, real_authors, world_facts, holdout (or pass `people`,
whose splits are used instead). Each side runs once in float32, then ours in bfloat16 autocast where that is fast.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import torch
from _common import quiet_libraries, report

from expunge.data.base import DataSpec
from expunge.data.encode import Encoded
from expunge.data.example import Example
from expunge.data.load import load_examples
from expunge.evaluate.answer_kinds import Labeller
from expunge.evaluate.base import Item
from expunge.evaluate.config import EvaluateConfig, Role
from expunge.evaluate.measure import Measured, measure
from expunge.evaluate.score import load_metrics
from expunge.evaluate.sets import EvalSet
from expunge.models.base import LanguageModel
from expunge.models.config import ModelConfig
from expunge.models.generate import Scored
from expunge.models.load import load_model

BATCH = 32
NEW_TOKENS = 64
ROLES: dict[str, Role] = {
    "forget": "forget",
    "retain": "retain",
    "real_authors": "neighbour",
    "world_facts": "general",
    "holdout": "holdout",
}
ATTACKS = ("mia_loss", "mia_zlib", "mia_min_k", "mia_min_k_plus_plus")
METRICS = {
    "forget": (
        *("probability", "paraphrased_probability", "truth_ratio", "rouge_l_recall"),
        *("exact_memorization", "extraction_strength"),
    ),
    "retain": ("probability", "truth_ratio", "rouge_l_recall"),
    "real_authors": ("normalised_probability", "truth_ratio", "rouge_l_recall"),
    "world_facts": ("normalised_probability", "truth_ratio", "rouge_l_recall"),
    "holdout": ATTACKS,
}


def load(folder: str, count: int) -> dict[str, tuple[Example, ...]]:
    """The rows of each set; of `people`, the splits used instead."""
    stand_in = ("forget", "retain", "neighbour", "general", "dev_retain")
    if folder == "people":
        specs = [DataSpec(name="people", split=split, limit=count) for split in stand_in]
    else:
        specs = [DataSpec(name=str(Path(folder) / f"{name}.jsonl"), limit=count) for name in ROLES]
    return {name: load_examples(spec) for name, spec in zip(ROLES, specs, strict=True)}


def ours(model: LanguageModel, rows: dict[str, tuple[Example, ...]]) -> Measured:
    """One pass over all sets."""
    config = EvaluateConfig(samples=0, max_new_tokens=NEW_TOKENS, set_metrics=("membership",), cache=False)
    sets = {
        name: EvalSet(some, ROLES[name], config, (*METRICS[name], *(ATTACKS if name == "forget" else ())))
        for name, some in rows.items()
    }
    metrics = load_metrics(config.model_copy(update={"metrics": ("probability",)}))
    return measure(model, sets, metrics, Labeller(config.kinds), config, 0)


@torch.inference_mode()
def plain(model: LanguageModel, rows: dict[str, tuple[Example, ...]]) -> dict[str, dict[str, list[float]]]:
    """Every metric of every set by passes of its own."""
    values: dict[str, dict[str, list[float]]] = {}
    for name, some in rows.items():
        for metric_name in dict.fromkeys((*METRICS[name], *(ATTACKS if name == "forget" else ()))):
            (metric,) = load_metrics(EvaluateConfig(metrics=(metric_name,))).values()
            items = [Item(row) for row in some]
            for need in sorted(metric.needs - {"moments"}):
                items = _ask(model, items, need, moments="moments" in metric.needs)
            values.setdefault(name, {})[metric_name] = [metric.value(item, ROLES[name]) for item in items]
    return values


def _ask(model: LanguageModel, items: list[Item], need: str, *, moments: bool) -> list[Item]:
    if need == "greedy":
        return _generated(model, items)
    flat = [
        (place, model.encoder.answered(item.example, text))
        for place, item in enumerate(items)
        for text in _texts(item.example, need)
    ]
    found = [score for batch in _batches(flat) for score in _scored(model, [one for _, one in batch], moments)]
    result = []
    for place, item in enumerate(items):
        mine = tuple(score for (owner, _), score in zip(flat, found, strict=True) if owner == place)
        value = mine if need == "perturbed_answer" else (mine[0] if mine else None)
        result.append(Item(**{**vars(item), need: value}))
    return result


def _texts(row: Example, need: str) -> tuple[str, ...]:
    found = getattr(row, need)
    return found if need == "perturbed_answer" else (found,) if found else ()


def _batches(flat: Sequence[tuple[int, Encoded]]) -> Iterator[Sequence[tuple[int, Encoded]]]:
    for start in range(0, len(flat), BATCH):
        yield flat[start : start + BATCH]


def _scored(model: LanguageModel, rows: Sequence[Encoded], moments: bool) -> list[Scored]:
    width = max(len(row.ids) for row in rows)
    ids = torch.zeros(len(rows), width, dtype=torch.long)
    mask = torch.zeros_like(ids)
    for place, row in enumerate(rows):
        ids[place, : len(row.ids)] = torch.tensor(row.ids)
        mask[place, : len(row.ids)] = 1
    with model.autocast():
        logits = model.base(input_ids=ids, attention_mask=mask).logits
    logp = torch.log_softmax(logits.float(), dim=-1)
    results = []
    for place, row in enumerate(rows):
        own = logp[place, row.num_prompt - 1 : len(row.ids) - 1]
        labels = torch.tensor(row.labels)
        more = ()
        if moments:
            mean = (own.exp() * own).sum(-1)
            more = (tuple(mean.tolist()), tuple(((own.exp() * own.square()).sum(-1) - mean.square()).tolist()))
        hits = tuple((own.argmax(-1) == labels).tolist())
        results.append(Scored(tuple(own.gather(1, labels[:, None])[:, 0].tolist()), hits, *more))
    return results


def _generated(model: LanguageModel, items: list[Item]) -> list[Item]:
    texts = []
    for start in range(0, len(items), BATCH):
        prompts = [model.encoder.asked(item.example) for item in items[start : start + BATCH]]
        width = max(map(len, prompts))
        ids, mask = (
            torch.zeros(len(prompts), width, dtype=torch.long),
            torch.zeros(len(prompts), width, dtype=torch.long),
        )
        for place, prompt in enumerate(prompts):
            ids[place, width - len(prompt) :] = torch.tensor(prompt)
            mask[place, width - len(prompt) :] = 1
        with model.autocast():
            out = model.base.generate(
                input_ids=ids,
                attention_mask=mask,
                max_new_tokens=NEW_TOKENS,
                do_sample=False,
                pad_token_id=0,
                eos_token_id=sorted(model.encoder.stop_ids),
            )
        for row in out[:, width:].tolist():
            ends = [place for place, token in enumerate(row) if token in model.encoder.stop_ids]
            texts.append(model.encoder.decode(row[: ends[0]] if ends else row))
    return [Item(**{**vars(item), "greedy": text}) for item, text in zip(items, texts, strict=True)]


def timed(work: Callable[[], object]) -> tuple[float, object]:
    """Seconds and result."""
    start = time.perf_counter()
    result = work()
    return time.perf_counter() - start, result


def main(folder: str, name: str, count: int) -> None:
    """Print both ratios and the largest difference of any score."""
    quiet_libraries()
    rows = load(folder, count)
    template = "chat" if name == "smollm2-135m" else "plain"
    model = load_model(ModelConfig(name=name, precision="float32", template=template))
    warm = {key: some[:2] for key, some in rows.items()}
    ours(model, warm)
    our_seconds, found = timed(lambda: ours(model, rows))
    plain_seconds, expected = timed(lambda: plain(model, rows))
    model.precision = "bfloat16"
    ours(model, warm)
    half_seconds, half = timed(lambda: ours(model, rows))
    report(
        "evaluation of five sets / every metric by itself",
        plain_seconds=plain_seconds,
        our_seconds=our_seconds,
        times_faster=plain_seconds / our_seconds,
        largest_difference=_difference(found, expected),
        bfloat16_seconds=half_seconds,
        bfloat16_times_faster=plain_seconds / half_seconds,
        bfloat16_largest_difference=_difference(half, expected),
    )


def _difference(found: object, expected: object) -> float:
    """Of the mean of any metric on any set."""
    assert isinstance(found, Measured)
    assert isinstance(expected, dict)
    differences = {
        (name, metric): abs(sum(numbers) / len(numbers) - sum(map(float, found.values[name][metric])) / len(numbers))
        for name, by_metric in expected.items()
        for metric, numbers in by_metric.items()
    }
    largest = sorted(differences, key=lambda key: -differences[key])[:3]
    print({key: round(differences[key], 6) for key in largest})
    return max(differences.values())


if __name__ == "__main__":
    main(sys.argv[1], *(sys.argv[2:3] or ["smollm2-135m"]), int(sys.argv[3]) if len(sys.argv) > 3 else 40)
