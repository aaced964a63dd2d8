"""Which architectures work: a tiny random model of each, run with recipes, evaluation, attacks, save and reload.

    python benchmarks/architectures.py [--only NAME ...] [--jobs N] [--results FOLDER] [--out FILE]

prints a Markdown table. A cell is "ok", or the number of a footnote with the line that a user would read. A footnote in
bold is a fault: an error other than a one-line refusal, or a result that differs from plain transformers calls.

Every architecture runs in its own process, so that a crash, an endless loop or lack of memory loses nothing else. With
`--results` each leaves a file, and a later call runs only those without one, or those that are named.

- *load*: the folder loads.
- *evaluate*: the probabilities that `expunge.measure` reports equal those of plain transformers calls, and answers
  scored and generated from a cache equal plain passes over whole rows, all to 1e-5, on rows longer than sliding
  windows.
- a recipe: one epoch through `expunge.unlearn`, with the default attacks in the first column of recipes.
- *reload*: plain transformers computes the same logits from the saved model as the model in memory, to 1e-5; every
  weight that was not trained is unchanged to the byte.
"""

from __future__ import annotations

import argparse
import gc
import json
import math
import multiprocessing
import multiprocessing.connection
import shutil
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import torch
import transformers
import zoo
from safetensors import safe_open

import expunge
from expunge.cli._console import quiet_libraries
from expunge.core.errors import ExpungeError
from expunge.models.config import ModelConfig
from expunge.models.generate import decode, score_answers
from expunge.models.load import load_model
from expunge.models.prefix import encode_prompts

RECIPES: dict[str, tuple[str, ...]] = {
    "npo": (),
    "npo_local": (),
    "rmu": ("localize.window=1", "localize.top=0.5"),
    "falcon": ("localize.components=1",),
    "kuda": (
        "combine.energy=0.1",  # random weights have no direction that few inputs feel
        "localize.min_probability=0",
        "localize.depth=[0.0, 1.0]",
        "localize.window=1",
        "localize.facts=3",
        "localize.draws=2",
        "localize.min_effect=-1",
    ),
    "bs_t": (),
    "npo+LoRA": ("model.adapter=lora", "model.lora.r=2"),
}
"""Column -> options beside those of all: what a model of two blocks and 24 short rows needs."""

COLUMNS = ("load", "evaluate", *RECIPES, "attacks", "reload")
FAST = (
    "train.epochs=1",
    "train.batch_size=6",
    "train.checkpoints=false",
    "evaluate.samples=0",
    "evaluate.max_new_tokens=3",
    "evaluate.cache=false",
    'evaluate.metrics=["probability", "keyword_recall"]',  # the others judge texts, whatever model wrote them
)
TOLERANCE = 1e-5
LONGEST = 900.0
"""Seconds for one architecture."""
HEAD = """# Architectures

Tiny random models of the causal language models that transformers can build without a network, and of two that are
not causal, each run with recipes, evaluation, the default attacks, and save and reload. A name with a comma is a type
with settings of published models (`VARIANTS` in `benchmarks/zoo.py`). Of {count} rows {works} work throughout and
{refused} are refused; the others work except for the numbered cells. This page is written by

    python benchmarks/architectures.py --results FOLDER --out docs/architectures.md

with {versions} on a CPU (about ten seconds of one core per type).

- *load*: the model folder loads; decoder, blocks and head are found by observing a pass over a few tokens.
- *evaluate*: the probabilities that `expunge eval` reports equal those of plain transformers calls, and answers
  scored and generated from cached states equal plain passes over whole rows, to a relative and absolute {tolerance} in
  float32, with sliding windows of {window} tokens and rows of up to 30.
- a recipe: one epoch; *attacks*: the default attacks of a run, after `npo`.
- *reload*: plain transformers reads the saved folder and computes the logits of the model in memory, and every weight
  that was not trained, vision towers included, is unchanged to the byte.

A number refers to a one-line refusal below the table; a bold number would be a fault. Names are those of transformers
(`model_type`).
"""

_NAMES = ("Ann", "Bob", "Cleo", "Daniel", "Eva", "Fay", "Gus", "Hal", "Ida", "Jo", "Kimberley")
_OTHERS = ("Leo", "Max", "Nora", "Otto", "Pia", "Quin", "Rosalind", "Sam", "Tess", "Uma", "Vic")


def rows(names: tuple[str, ...]) -> list[dict[str, Any]]:
    """Short questions and answers of different lengths."""
    return [{"question": f"Who is {name}?", "answer": f"A {name}.", "subject": name} for name in names]


FORGET, RETAIN = rows(_NAMES), rows(_OTHERS)


class Wrong(Exception):
    """A result that differs from that of plain transformers calls."""


def plain_model(folder: Path) -> Any:
    """The folder as a user of transformers loads it."""
    (name,) = transformers.AutoConfig.from_pretrained(folder).architectures
    return getattr(transformers, name).from_pretrained(folder, dtype=torch.float32).eval()


@torch.no_grad()
def plain_logp(model: Any, ids: list[int], num_prompt: int) -> list[float]:
    """Log-probabilities of what follows the prompt, from one pass over one row without a cache."""
    logits = model(input_ids=torch.tensor([ids]), use_cache=False).logits[0].double()
    logp = torch.log_softmax(logits, -1)
    return [logp[place - 1, ids[place]].item() for place in range(num_prompt, len(ids))]


@torch.no_grad()
def plain_greedy(model: Any, prompt: list[int], count: int, end: int) -> list[int]:
    """Greedy tokens, each from a pass over everything before it."""
    ids = list(prompt)
    for _ in range(count):
        token = int(model(input_ids=torch.tensor([ids]), use_cache=False).logits[0, -1].argmax())
        if token == end:
            break
        ids.append(token)
    return ids[len(prompt) :]


def check_evaluation(folder: Path) -> None:
    """Compare what is measured with plain calls.

    Raises:
        Wrong: it differs.
    """
    theirs = plain_model(folder)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    encoded = []
    for row in FORGET:
        turn = [{"role": "user", "content": row["question"]}]
        text = tokenizer.apply_chat_template(turn, add_generation_prompt=True, tokenize=False)
        prompt = tokenizer(text, add_special_tokens=False)["input_ids"]
        answer = tokenizer(f"{row['answer']}<|end|>", add_special_tokens=False)["input_ids"]
        encoded.append((prompt, answer))
    logp = [plain_logp(theirs, prompt + answer, len(prompt)) for prompt, answer in encoded]
    expected = sum(math.exp(sum(row) / len(row)) for row in logp) / len(logp)
    config = {"samples": 0, "max_new_tokens": 3, "cache": False, "metrics": ["probability", "rouge_l_recall"]}
    found = expunge.measure(str(folder), {"forget": FORGET}, config=config).scores["forget"]["probability"]
    value = getattr(found, "value", found)
    if not math.isclose(value, expected, rel_tol=TOLERANCE, abs_tol=TOLERANCE):
        raise Wrong(f"probability {value:.7f}, plain {expected:.7f}")
    ours = load_model(ModelConfig(name=str(folder), device="cpu", precision="float32"))
    prefix = encode_prompts(ours, [prompt for prompt, _ in encoded])
    scored = score_answers(prefix, range(len(encoded)), [answer for _, answer in encoded])
    for one, row in zip(scored, logp, strict=True):
        if not torch.allclose(torch.tensor(one.logp), torch.tensor(row), rtol=TOLERANCE, atol=TOLERANCE):
            raise Wrong(f"log-probabilities from the cache: {list(one.logp)}, plain {row}")
    end = tokenizer.eos_token_id
    greedy = decode(prefix, 6, frozenset({end}))
    for (prompt, _), tokens in zip(encoded, greedy, strict=True):
        plain = plain_greedy(theirs, prompt, 6, end)
        if list(tokens) != plain:
            raise Wrong(f"greedy tokens {list(tokens)}, plain {plain}")


def check_reload(run: Path, source: Path, model: Any, is_part: bool) -> None:
    """Compare the saved model with the one in memory, and its weights with the source's.

    Raises:
        Wrong: they differ.
    """
    saved = run / "model"
    ids = torch.randint(8, zoo.VOCABULARY, (1, 3 * zoo.WINDOW), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        ours = model.eval()(input_ids=ids, use_cache=False).logits
        theirs = plain_model(saved)(input_ids=ids, use_cache=False).logits
    if not torch.allclose(ours, theirs, rtol=TOLERANCE, atol=TOLERANCE):
        raise Wrong(f"reloaded logits differ by {(ours - theirs).abs().max():.2g}")
    before, after = weights(source), weights(saved)
    if set(before) != set(after):
        raise Wrong(f"other weights are saved: {', '.join(sorted(set(before) ^ set(after))[:3])}")
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    if not moved or (is_part and len(moved) > len(before) / 2):
        raise Wrong(f"{len(moved)} of {len(before)} weights moved")


def weights(folder: Path) -> dict[str, torch.Tensor]:
    """Every tensor that is stored in a folder."""
    found = {}
    for file in folder.glob("*.safetensors"):
        with safe_open(file, framework="pt") as opened:
            found |= {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118 - no mapping
    return found


def try_recipe(folder: Path, column: str, cells: dict[str, Any], run: Callable[[str, Callable[[], Any]], bool]) -> None:
    """One run; with the first recipe the attacks, with two of them the reload of what was saved."""
    options = [*FAST, *RECIPES[column], *(() if column == "npo" else ("attacks.names=[]",))]
    out = Path(tempfile.mkdtemp(prefix="architectures-"))
    made: list[Any] = []

    def unlearn() -> None:
        recipe = column.removesuffix("+LoRA")
        found = expunge.unlearn(
            str(folder), forget=FORGET, retain=RETAIN, recipe=recipe, out=out / "run", settings=options
        )
        made.append(found)
        values = [value for step in found.record.steps for value in step.values.values()]
        if not values or not all(map(math.isfinite, values)):
            raise Wrong("a loss is not finite")

    def attacks() -> None:
        failed = [one for one in made[0].record.robustness.attacks if one.failed]
        if any(one.traceback for one in failed):
            raise Wrong("; ".join(f"{one.name}: {one.failed}" for one in failed if one.traceback))
        if failed:
            raise ExpungeError(f"{failed[0].name}: {failed[0].failed}")

    try:
        worked = run(column, unlearn)
        if column == "npo" and worked:
            run("attacks", attacks)
        if column in ("npo", "rmu") and worked:
            run("reload", lambda: check_reload(out / "run", folder, made[0].model, column == "rmu"))
    finally:
        made.clear()
        shutil.rmtree(out, ignore_errors=True)


def try_architecture(name: str) -> dict[str, str]:
    """Cells by column; whatever fails leaves the others."""
    cells: dict[str, str] = {}
    folder = Path(tempfile.mkdtemp(prefix="architectures-"))

    def run(column: str, work: Callable[[], Any]) -> bool:
        try:
            work()
        except ExpungeError as error:
            cells[column] = str(error).replace(str(folder), "FOLDER")
        except Wrong as error:
            cells[column] = f"**wrong: {error}**"
        except Exception as error:  # the point of the table
            lines = str(error).splitlines() or [""]
            cells[column] = f"**{type(error).__name__}: {lines[0][:160]}**"
        else:
            cells[column] = "ok"
        return cells[column] == "ok"

    try:
        if not run("build", lambda: zoo.save(name, folder)):
            return {"load": f"cannot be built here: {cells['build'].strip('*')}"}
        if run("load", lambda: load_model(ModelConfig(name=str(folder)))):
            run("evaluate", lambda: check_evaluation(folder))
            for column in RECIPES:
                try_recipe(folder, column, cells, run)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return cells


def table(found: dict[str, dict[str, str]]) -> str:
    """Markdown; cells with the same message share a footnote."""
    notes: dict[str, int] = {}
    lines = ["| architecture | " + " | ".join(COLUMNS) + " |", "| --- " * (len(COLUMNS) + 1) + "|"]
    for name, cells in found.items():
        shown = []
        for column in COLUMNS:
            text = cells.get(column, "-")
            shown.append(text if text in ("ok", "-") else f"[{notes.setdefault(text, len(notes) + 1)}]")
        lines.append(f"| {name} | " + " | ".join(shown) + " |")
    lines.append("")
    lines += [f"{number}. {text}" for text, number in notes.items()]
    return "\n".join(lines)


def try_all(names: list[str], folder: Path, jobs: int) -> None:
    """Try each in a process of its own; what is found lies in the folder, one file each."""
    folder.mkdir(parents=True, exist_ok=True)
    context = multiprocessing.get_context("fork")  # libraries are imported once
    waiting, running = [*names], {}
    while waiting or running:
        while waiting and len(running) < jobs:
            name = waiting.pop(0)
            process = context.Process(target=_try_one, args=(name, folder / f"{name}.json"))
            process.start()
            running[process.sentinel] = (name, process, time.monotonic())
        ended = multiprocessing.connection.wait(list(running), timeout=5)
        for sentinel, (name, process, began) in list(running.items()):
            seconds = time.monotonic() - began
            if sentinel not in ended and seconds < LONGEST:
                continue
            if sentinel not in ended:
                process.kill()
            process.join()
            del running[sentinel]
            file = folder / f"{name}.json"
            if process.exitcode:
                why = "no end in" if seconds >= LONGEST else f"exit code {process.exitcode} after"
                file.write_text(json.dumps({"load": f"**{why} {seconds:.0f} s**"}), encoding="utf-8")
            found = json.loads(file.read_text(encoding="utf-8"))
            bad = {column: text for column, text in found.items() if text != "ok"}
            print(f"{name}: {seconds:.0f} s {bad or 'ok'}", flush=True)


def _try_one(name: str, file: Path) -> None:
    found = try_architecture(name)
    file.write_text(json.dumps(found, indent=1), encoding="utf-8")


def page(found: dict[str, dict[str, str]]) -> str:
    """The page of the documentation."""
    head = HEAD.format(
        versions=f"transformers {transformers.__version__} and torch {torch.__version__.partition('+')[0]}",
        count=len(found),
        works=sum(all(cells.get(column) == "ok" for column in COLUMNS) for cells in found.values()),
        refused=sum(cells.get("load") != "ok" for cells in found.values()),
        tolerance=f"{TOLERANCE:g}",
        window=zoo.WINDOW,
    )
    left = [name for name in zoo.names() if name not in found]
    rest = f"\n\nNot run yet, though the command covers them: {', '.join(left)}." if left else ""
    return f"{head}\n{table(found)}{rest}\n"


def main() -> None:
    """Run the named architectures, or all."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="+", metavar="NAME", help="model types, as zoo.names() lists them")
    parser.add_argument("--jobs", type=int, default=1, metavar="N", help="how many run at a time (1)")
    parser.add_argument("--results", type=Path, metavar="FOLDER", help="keep results there; finished ones are skipped")
    parser.add_argument("--out", type=Path, help="write the page of the documentation there")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    quiet_libraries()
    torch.set_num_threads(1)
    start = time.perf_counter()
    with (
        tempfile.TemporaryDirectory() as scratch,
        # pages take longer than the models
        mock.patch("expunge.workflows.run_directory._write_page", return_value=None),
    ):
        folder = arguments.results or Path(scratch)
        asked = arguments.only or [name for name in zoo.names() if not (folder / f"{name}.json").exists()]
        gc.collect()
        gc.freeze()  # collections do not look through the libraries
        try_all(asked, folder, arguments.jobs)
        files = {name: folder / f"{name}.json" for name in dict.fromkeys([*zoo.names(), *asked])}
        found = {name: json.loads(file.read_text("utf-8")) for name, file in files.items() if file.exists()}
    if arguments.out:
        arguments.out.write_text(page(found), encoding="utf-8")
    print(table(found))
    print(f"\n{len(asked)} architectures, {(time.perf_counter() - start) / 60:.0f} minutes")


if __name__ == "__main__":
    main()
