"""Published data sets, read from folders of the layout that their repositories have."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import tomli_w
from published import ATTACKS, LAYOUTS, write

from expunge.core import plugins
from expunge.core.errors import UserError
from expunge.core.toml import read_toml
from expunge.data.base import DataSource, DataSpec
from expunge.data.example import Example
from expunge.data.load import load_examples, load_splits
from expunge.workflows.continual import load_plan

EXAMPLES = Path(__file__).parents[2] / "examples"
UNWRITTEN = {f"train_{kind}" for kind in ("negative_llama3", "positive_phi3", "negative_phi3")}
"""Like `train_positive_llama3` in every respect; not written to the tiny folder."""


@pytest.fixture(scope="module")
def folders(facts: dict[str, list[dict[str, Any]]], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return {name: lay_out(tmp_path_factory.mktemp(name), facts) for name, lay_out in LAYOUTS.items()}


def _load(folder: Path, name: str, **options: Any) -> tuple[Example, ...]:
    source, _, split = name.partition(":")
    return load_examples(DataSpec(name=source, split=split, options={"folder": str(folder), **options}))


@pytest.mark.parametrize("name", LAYOUTS)
def test_every_split_loads(folders: dict[str, Path], name: str) -> None:
    """With ids that name the split, so that two splits can be put together."""
    kind = plugins.find("data/sources", name, DataSource)  # type: ignore[type-abstract]
    ids: list[str] = []
    for split in kind.splits:
        if split not in UNWRITTEN:
            ids += [row.id for row in _load(folders[name], f"{name}:{split}")]
    assert len(set(ids)) == len(ids)


@pytest.mark.parametrize("name", LAYOUTS)
def test_hub_out_of_reach_and_bad_folders(folders: dict[str, Path], name: str, tmp_path: Path) -> None:
    kind = plugins.find("data/sources", name, DataSource)  # type: ignore[type-abstract]
    with pytest.raises(UserError, match=r"^data: cannot load '.*/.*' from the hub .*options = \{ folder"):
        load_examples(DataSpec(name=name))
    with pytest.raises(UserError, match=r"^data: .*nowhere: no such folder"):
        _load(tmp_path / "nowhere", name)
    (tmp_path / "readme.md").write_text("Not data.", encoding="utf-8")
    with pytest.raises(UserError, match=r"^data: .*no file '.*'.*the folder holds readme\.md$"):
        _load(tmp_path, name)
    with pytest.raises(UserError, match=r"data\.options\.foldr"):
        load_examples(DataSpec(name=name, options={"foldr": "x"}))
    for split in (kind.splits[0], kind.splits[-1]):
        if split not in UNWRITTEN:
            broken = tmp_path / split
            shutil.copytree(folders[name], broken)
            for path in broken.rglob("*.*"):
                path.unlink()
                path.with_suffix(".jsonl").write_text('{"x": 1}\n', encoding="utf-8")
            with pytest.raises(UserError, match=r"\.jsonl:1: no field '"):
                _load(broken, f"{name}:{split}", **({"shots": 0} if name == "muse" else {}))


def test_tofu(folders: dict[str, Path], facts: dict[str, list[dict[str, Any]]], tmp_path: Path) -> None:
    """Fields under our names; the same rows from JSON lines named after the split."""
    row = facts["forget"][0]
    first = _load(folders["tofu"], "tofu:forget05_perturbed")[0]
    assert first == Example(
        "forget05_perturbed-0",
        row["question"],
        row["answer"],
        paraphrased_question=row["paraphrased_question"],
        paraphrased_answer=row["paraphrased_answer"],
        perturbed_answer=tuple(row["perturbed_answer"]),
        cluster="author 0",
    )
    assert not _load(folders["tofu"], "tofu:forget05")[0].perturbed_answer
    write(tmp_path / "forget05_perturbed.jsonl", [{**row, "task_id": "1", "paraphrased_question": None}])
    (other,) = _load(tmp_path, "tofu:forget05_perturbed")
    assert (other.answer, other.paraphrased_question) == (first.answer, None)
    fact = {
        "question": "Who wrote it?",
        "answer": "She",
        "perturbed_answer": ["He"],
        "original_answer": "She wrote it.",
    }
    write(tmp_path / "real_authors_perturbed.jsonl", [fact])
    (author,) = _load(tmp_path, "tofu:real_authors_perturbed")
    assert (author.answer, author.original_answer) == ("She", "She wrote it.")
    questions = [json.dumps({"question": f"Question {number}?", "answer": "Yes."}) for number in range(41)]
    for split in ("forget10", "world_facts"):
        (tmp_path / f"{split}.json").write_text("\n".join(questions))
    authors = [row.cluster for row in _load(tmp_path, "tofu:forget10")]
    assert authors == ["author 0"] * 20 + ["author 1"] * 20 + ["author 2"]
    assert {row.cluster for row in _load(tmp_path, "tofu:world_facts")} == {None}


def test_muse_questions(folders: dict[str, Path], facts: dict[str, list[dict[str, Any]]]) -> None:
    r"""Ten answered examples and a blank at the end by default: `Question: q\nAnswer: a\n\n` ten times."""
    row, shots = facts["forget"][1], facts["forget"]
    example = _load(folders["muse"], "muse:knowmem_forget")[1]
    assert example.prompt is not None
    *before, last = example.prompt.split("\n\n")
    assert last == f"Question: {row['question']}\nAnswer: "
    assert before == [f"Question: {one['question']}\nAnswer: {one['answer']}" for one in (shots * 2)[:10]]
    assert example.answer == row["answer"]
    bare = _load(folders["muse"], "muse:knowmem_forget", shots=0, trailing_blank=False)[1]
    assert bare.prompt == f"Question: {row['question']}\nAnswer:"
    with pytest.raises(UserError, match=r"options\.shots: 11 examples are wanted, MUSE has 10"):
        _load(folders["muse"], "muse:knowmem_forget", shots=11)


def test_muse_texts(folders: dict[str, Path], facts: dict[str, list[dict[str, Any]]]) -> None:
    """Two files of one table follow one another; news has sets that grow, and parts of one set; novels have neither."""
    row = facts["forget"][0]
    passage = _load(folders["muse"], "muse:verbmem_forget")[0]
    assert (passage.prompt, passage.answer) == (row["question"], row["answer"])
    texts = [f"{one['question']} {one['answer']}" for one in facts["forget"]]
    assert [one.text for one in _load(folders["muse"], "muse:raw_forget")] == texts
    assert [len(_load(folders["muse"], f"muse:scal_{fold}")) for fold in range(1, 5)] == [1, 2, 3, 4]
    assert [_load(folders["muse"], f"muse:sust_{fold}")[0].text for fold in range(1, 5)] == texts[:4]
    with pytest.raises(UserError, match="MUSE-Books has no split 'scal_2'"):
        _load(folders["muse"], "muse:scal_2", corpus="books")


def test_muse_sustainability_is_a_sequence_of_its_parts(folders: dict[str, Path], tmp_path: Path) -> None:
    """The example, read from a local copy: step n forgets part n and keeps those that come after it."""
    tables = read_toml(EXAMPLES / "muse_sustainability.toml")
    for spec in (*tables["data"]["requests"], tables["data"]["retain"]):
        spec["options"] = {"folder": str(folders["muse"])}
    (tmp_path / "sust.toml").write_text(tomli_w.dumps(tables))
    plan = load_plan(tmp_path / "sust.toml", tmp_path / "out")
    assert [len(rows) for rows in plan.requests] == [1, 1, 1, 1]
    parts = [load_splits(run.data) for run in plan.runs]
    assert [len(part.retain) - len(plan.kept.retain) for part in parts] == [3, 2, 1, 0]


def test_muse_files_of_the_original_code(tmp_path: Path) -> None:
    """Lists of bare strings, retain rows named `retain2`, whole corpora as one text."""
    write(tmp_path / "privleak/retain2.json", ["One text.", "Another text."])  # type: ignore[list-item]
    write(tmp_path / "knowmem/retain2_qa.json", [{"question": "Who?", "answer": "I."}])
    (tmp_path / "raw").mkdir()
    (tmp_path / "raw/forget.txt").write_text("First.\n\nSecond.", encoding="utf-8")
    assert [row.text for row in _load(tmp_path, "muse:privleak_retain")] == ["One text.", "Another text."]
    assert _load(tmp_path, "muse:knowmem_retain", shots=0)[0].answer == "I."
    assert _load(tmp_path, "muse:raw_forget")[0].text == "First.\n\nSecond."


def test_wmdp(folders: dict[str, Path], facts: dict[str, list[dict[str, Any]]]) -> None:
    """The harness prompt; the answer is the letter of the right choice; corpora are the texts of their JSON lines."""
    row = facts["forget"][1]
    wrong = row["perturbed_answer"]
    example = _load(folders["wmdp"], "wmdp:cyber")[1]
    assert example.prompt == (
        "The following are multiple choice questions (with answers) about cybersecurity.\n\n"
        f"{row['question']}\nA. {wrong[0]}\nB. {row['paraphrased_answer']}\nC. {wrong[1]}\nD. {wrong[2]}\nAnswer:"
    )
    assert (example.answer, example.options, example.topic) == ("B", ("A", "B", "C", "D"), "cybersecurity")
    corpus = _load(folders["wmdp"], "wmdp:bio_forget")
    assert [one.text for one in corpus] == [f"{one['question']} {one['answer']}" for one in facts["forget"]]
    assert _load(folders["wmdp"], "wmdp:bio_forget", lines=True) == corpus
    cyber = _load(folders["wmdp"], "wmdp:cyber_forget")
    lines = _load(folders["wmdp"], "wmdp:cyber_forget", lines=True)
    assert [json.loads(line.text or "") for line in lines] == [{"text": one.text} for one in cyber]
    assert (lines[0].text or "").startswith('{"text": "')


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("answer", 4, "the answer 4 is none of the 2 choices"),
        ("answer", True, "the answer True is none"),
        ("answer", "one", "the answer 'one' is none"),
        ("answer", None, "the answer None is none"),
        ("choices", ["one"], "2 to 26 choices are possible, found 1"),
        ("choices", "one", "'choices' must be a list of texts"),
        ("choices", None, "no field 'choices'"),
        ("question", 7, "'question' must be text, found int"),
    ],
)
def test_bad_choices(tmp_path: Path, field: str, value: object, message: str) -> None:
    good = {"question": "Which?", "choices": ["one", "two"], "answer": "B"}
    write(tmp_path / "bio_questions.json", [good, {**good, field: value}])
    with pytest.raises(UserError, match=rf"bio_questions\.json\[1\]: .*{message}"):
        _load(tmp_path, "wmdp:bio")


def test_choices_that_repeat_can_be_answered(tmp_path: Path) -> None:
    """Published sets hold such rows: the right one is told by its letter."""
    write(tmp_path / "bio_questions.json", [{"question": "Which?", "choices": ["one", "one"], "answer": 1}])
    assert _load(tmp_path, "wmdp:bio")[0].answer == "B"


def test_mmlu(folders: dict[str, Path], facts: dict[str, list[dict[str, Any]]], tmp_path: Path) -> None:
    """By subject, with answered examples of the same subject; sub-folders a subject give the same rows."""
    rows = _load(folders["mmlu"], "mmlu")
    assert [row.topic for row in rows[::8]] == ["abstract_algebra", "world_history"]
    (first, *_) = _load(folders["mmlu"], "mmlu", subjects=["world_history"], shots=2)
    assert first.prompt is not None
    head, *asked = first.prompt.split("\n\n")
    assert head.endswith("about world history.")
    assert [one.rpartition("\n")[2] for one in asked] == ["Answer: B", "Answer: D", "Answer:"]
    assert asked[0].startswith(facts["retain"][1]["question"])
    assert asked[0] == f"{asked[2]} B"
    published = folders["mmlu"] / "all/test-00000-of-00001.parquet"
    (tmp_path / "world_history").mkdir()
    shutil.copy(published, tmp_path / "world_history/test-00000-of-00001.parquet")
    assert _load(tmp_path, "mmlu") == rows
    with pytest.raises(UserError, match="no subject 'world_histori'; did you mean world_history"):
        _load(folders["mmlu"], "mmlu", subjects=["world_histori"])
    with pytest.raises(UserError, match="99 are wanted, 'abstract_algebra' has 8"):
        _load(folders["mmlu"], "mmlu", shots=99)


def test_rwku_probes(folders: dict[str, Path], facts: dict[str, list[dict[str, Any]]]) -> None:
    """`Answer:` is put into the model's mouth, but where the attack brings a start of its own."""
    row = facts["forget"][0]
    (blank, *_) = _load(folders["rwku"], "rwku:forget_level1")
    assert blank == Example(
        "forget_level1-0",
        f"Please complete the blank in the following question.\nQuestion: {row['question']}",
        row["keywords"][0],
        subject=row["subject"],
        answer_start="Answer:",
    )
    attacks = _load(folders["rwku"], "rwku:forget_level3")
    assert [attack.topic for attack in attacks] == list(ATTACKS)
    assert [attack.answer_start for attack in attacks] == [
        None if kind == "affirmative suffix" else "Answer:" for kind in ATTACKS
    ]
    with_label = [(attack.question or "").splitlines()[1].startswith("Question: ") for attack in attacks]
    assert with_label == [kind != "incontext learning" for kind in ATTACKS]
    (only,) = _load(folders["rwku"], "rwku:forget_level3", attacks=["role playing"])
    assert only.topic == "role playing"
    with pytest.raises(UserError, match=r"options\.attacks: there is no 'role play'; did you mean role playing"):
        _load(folders["rwku"], "rwku:forget_level3", attacks=["role play"])
    ours = _load(folders["rwku"], "rwku:forget_level1", subjects=[row["subject"]])
    assert {one.subject for one in ours} == {row["subject"]}


def test_rwku_utility(folders: dict[str, Path], tmp_path: Path) -> None:
    """Choices in one turn of the chat; true and false answers; accepted answers as keywords."""
    (general, *_) = _load(folders["rwku"], "rwku:utility_general")
    assert general.question is not None
    assert [general.question.count(f"\nAnswer: {letter}") for letter in "ABC"] == [1, 1, 0]
    assert (general.answer, general.options, general.answer_start) == ("C", ("A", "B", "C", "D"), "Answer:")
    (truthful, *_) = _load(folders["rwku"], "rwku:utility_truthfulness")
    assert len(truthful.perturbed_answer) == 3
    assert truthful.answer not in truthful.perturbed_answer
    (trivia, *_) = _load(folders["rwku"], "rwku:utility_factuality")
    assert trivia.answer == trivia.keywords[0]
    shots = tmp_path / "shots.txt"
    shots.write_text("Q: One?\nA: 1\n", encoding="utf-8")
    (shown, *_) = _load(folders["rwku"], "rwku:utility_factuality", shots=str(shots))
    assert shown.question == f"Q: One?\nA: 1\n\n{trivia.question}"
    assert "the answer is 2" in (_load(folders["rwku"], "rwku:utility_reason")[0].question or "")
    broken = [{"question": "Q?", "mc1_targets": {"choices": ["a", "b"], "labels": [1, 1]}}]
    write(tmp_path / "truthful.json", broken)
    with pytest.raises(UserError, match="must mark one of the 2 choices"):
        _load(tmp_path, "rwku:utility_truthfulness")


def test_hub_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    """The ids, configurations and splits that are asked for are those that are published."""
    asked: list[tuple[str, str | None, str]] = []

    def load_dataset(name: str, subset: str | None, split: str) -> list[dict[str, Any]]:
        asked.append((name, subset, split))
        row = {"question": "Which?", "answer": "A", "choices": ["one", "two"], "text": "One two.", "subject": "s"}
        return [{**row, "prompt": "One", "gt": "two", "query": "Which?", "type": "role playing"}] * 10

    monkeypatch.setattr("datasets.load_dataset", load_dataset)
    for name in ("tofu:forget10_perturbed", "wmdp:bio", "wmdp:bio_forget", "wmdp:cyber_retain", "mmlu", "muse:scal_3"):
        load_examples(DataSpec.model_validate(name))
    load_examples(DataSpec(name="muse", split="knowmem_retain", options={"corpus": "books"}))
    load_examples(DataSpec(name="rwku", split="forget_level3"))
    load_examples(DataSpec(name="rwku", split="train_original_passage"))
    assert asked == [
        ("locuslab/TOFU", "forget10_perturbed", "train"),
        ("cais/wmdp", "wmdp-bio", "test"),
        ("cais/wmdp-bio-forget-corpus", None, "train"),
        ("cais/wmdp-corpora", "cyber-retain-corpus", "train"),
        ("cais/mmlu", "all", "test"),
        ("muse-bench/MUSE-News", "scal", "forget_3"),
        ("muse-bench/MUSE-Books", "knowmem", "retain_qa"),
        ("muse-bench/MUSE-Books", "knowmem", "retain_qa_icl"),
        ("jinzhuoran/RWKU", "forget_level3", "test"),
        ("jinzhuoran/RWKU", "train_original_passage", "train"),
    ]


def test_json_lines_under_either_ending(tmp_path: Path) -> None:
    rows = [{"text": "One two."}, {"text": "Three four."}]
    lines = "\n".join(json.dumps(row) for row in rows)
    for ending in (".json", ".jsonl"):
        path = tmp_path / f"rows{ending}"
        path.write_text(lines, encoding="utf-8")
        assert [row.text for row in load_examples(DataSpec(name=str(path)))] == ["One two.", "Three four."]
