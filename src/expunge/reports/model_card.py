"""The model card (README.md beside the weights): data to remove, method, scores, and threats not tested."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePath

from expunge.core.records import Record
from expunge.reports.formats import SPLITS, cell_text, score_text
from expunge.reports.metric_texts import metric_title
from expunge.reports.robustness import robustness_section
from expunge.reports.score_table import absences, comparison, headline
from expunge.reports.verdict import verdict

HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")


def model_card(record: Record) -> str:
    """The card as Markdown with YAML front matter; it names the source of the forget data, never their text."""
    parts = [
        _front(record),
        *_opening(record),
        *_data(record),
        *_method(record),
        *_scores(record),
        *_robustness(record),
        *_limits(record),
        *_use(record),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _front(record: Record) -> str:
    lines = ["library_name: transformers", "pipeline_tag: text-generation"]
    if _is_hub_id(record.model.source):
        lines.append(f"base_model: {json.dumps(record.model.source)}")
    tags = dict.fromkeys(["unlearning", "machine-unlearning", "expunge", record.recipe])
    lines += ["tags:", *(f"  - {json.dumps(tag)}" for tag in tags)]
    return "\n".join(["---", *lines, "---"])


def _opening(record: Record) -> list[str]:
    judged = verdict(record)
    return [
        f"# {_inline(_place(record.model.source))}, unlearned with {_inline(record.recipe)}",
        f"**{_inline(judged.sentence)}**",
        _inline(judged.guard),
        f"Made by Expunge {_inline(record.provenance.expunge)} on "
        f"{record.provenance.created[:10]}. Original weights: `{record.model.sha256[:16]}` "
        f"({record.model.num_parameters:,} parameters, {_inline(record.model.architecture)}).",
    ]


def _data(record: Record) -> list[str]:
    rows = [
        [name, SPLITS.get(name, ""), f"`{_place(data.source)}`", f"{data.rows:,}", f"`{data.sha256[:16]}`"]
        for name, data in record.data.items()
    ]
    return [
        "## Data",
        "The data are named by source and SHA-256; their text is not part of this card.",
        _table(["data", "purpose", "source", "rows", "SHA-256 (start)"], rows),
    ]


def _method(record: Record) -> list[str]:
    chosen, guard = record.selection, record.guard
    share = 100 * chosen.num_parameters / max(record.model.num_parameters, 1)
    text = (
        f"Recipe `{record.recipe}`; {record.num_steps:,} steps ({record.num_epochs:g} epochs) in "
        f"{record.provenance.precision}; weights to change were chosen by `{chosen.localizer}`: "
        f"{chosen.num_parameters:,} ({share:.3g}% of the model); adapter: {record.model.adapter}."
    )
    if guard.utility_floor is not None:
        text += f" A guard allowed utility to fall to {guard.utility_floor:.0%} of its value before."
    settings = [[f"`{key}`", f"`{_plain(value)}`"] for key, value in _flat(record.config)]
    return ["## Method", _inline(text), _table(["setting", "value"], settings)]


def _scores(record: Record) -> list[str]:
    rows = [row for row in headline(comparison(record)) if not row.absent]
    cells = [[r.split, metric_title(r.metric), score_text(r.before), score_text(r.after), r.n, r.words] for r in rows]
    return [
        "## Scores",
        "Mean [95% bootstrap interval] over n items; items about one person or document are resampled together.",
        _table(["split", "metric", "before", "after", "n", "change"], cells),
        "\n".join(f"- {_inline(note)}" for note in absences(headline(comparison(record)))),
    ]


def _robustness(record: Record) -> list[str]:
    if record.robustness is None:
        return []
    found = robustness_section(record.robustness)
    card = found.tables[0]
    rows = [[cell_text(cell) for cell in row] for row in card.rows]
    notes = "\n".join(f"- {_inline(note)}" for note in found.notes)
    return ["## Robustness", _inline(found.sentence), _table(card.columns, rows), notes]


def _limits(record: Record) -> list[str]:
    judged = verdict(record)
    return [
        "## Limits",
        "Tested: " + (_inline("; ".join(judged.tested)) or "nothing on the forget split") + ".",
        "**Not tested** (nothing is known about these threats): "
        + ("; ".join(judged.not_tested) or "all threats that this toolkit does not know")
        + ".",
        "Forgetting was measured on the forget data above only. Do not rely on this model alone where the law requires "
        "erasure.",
        "\n".join(f"- {_inline(warning)}" for warning in record.warnings),
    ]


def _use(record: Record) -> list[str]:
    code = [
        "from transformers import AutoModelForCausalLM, AutoTokenizer",
        "",
        'folder = "path/to/this/folder"',
        "tokenizer = AutoTokenizer.from_pretrained(folder)",
        "model = AutoModelForCausalLM.from_pretrained(folder)",
    ]
    layout = "with its chat template" if record.model.template == "chat" else "as plain text, without a chat template"
    adapter = (
        ""
        if record.model.adapter == "none"
        else " If this folder holds `adapter_config.json`, it needs `peft` and the base model that the file names."
    )
    return [
        "## How to load it",
        "\n".join(["```python", *code, "```"]),
        f"The model was scored {layout}.{adapter}",
    ]


def _is_hub_id(source: str) -> bool:
    return bool(HUB_ID.fullmatch(source)) and not Path(source).exists()


def _place(source: str) -> str:
    """The source without the folders of the machine that made the model."""
    return PurePath(source).name if re.match(r"[/~\\.]|[A-Za-z]:[/\\]", source) else source


def _flat(config: Mapping[str, object], prefix: str = "") -> Iterator[tuple[str, object]]:
    for key, value in config.items():
        if isinstance(value, Mapping) and value:
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _plain(value: object) -> str:
    if isinstance(value, str):
        return _place(value)
    if isinstance(value, (list, tuple)):
        return ", ".join(_plain(item) for item in value) or "[]"
    return json.dumps(value, default=str, ensure_ascii=False)


def _inline(text: str) -> str:
    """Text that cannot open HTML or a new block."""
    return " ".join(text.split()).replace("<", "&lt;")


def _table(head: list[str], rows: list[list[str]]) -> str:
    if not rows:
        return ""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(_inline(cell).replace("|", "\\|") for cell in line) + " |" for line in lines)
