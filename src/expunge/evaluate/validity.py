"""What scores cannot mean: whole sentences about the rows, about the answers, and about the model before the run.

Nothing here changes a number. `check_keywords` and `row_warnings` need no model, so that they come before the work.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from expunge.core.errors import UserError
from expunge.core.records import FEWEST_QUESTIONS, KEYWORD_METRICS
from expunge.data.example import Example, holds_any, normalise
from expunge.evaluate.base import Item
from expunge.evaluate.keywords import counted_keywords, prompt_text
from expunge.evaluate.measure import Measured
from expunge.evaluate.sets import EvalSet, Sets

FEW_ROWS = 5
"""Intervals over fewer rows are no more than a formality."""
CUT_SHARE = 0.1
"""A larger share of answers that met the length limit is worth a warning."""
KNOWN_SHARE = 0.5
"""Smallest share of the facts to forget that the model should say before the run."""
UTILITY_SHARE = 0.25
"""The same for sets that should stay."""
HARDLY_KNOWN = 0.25
"""With less than this share of the forget rows known before, silence afterwards is no sign of forgetting."""
KNOWN_OVERLAP = 0.3
"""Mean ROUGE-L recall of rows without keywords below which the model hardly knew them."""
SAME_SAMPLES = 0.9
"""Share of rows whose samples are all the same text, from which sampling adds nothing to the greedy answer."""

_POSITIONS = "the model's own table of positions"
_ROOM = "Shorter prompts leave more room for answers."
_RAISE = "Raise it, or let the model answer without reasoning first (model.template_options)."

Sentences = list[str]


def check_keywords(sets: Sets) -> None:
    """Refuse forget sets in which no answer contains any of its row's keywords.

    Raises:
        UserError: keyword scores of these rows would be 0 whatever the model knows.
    """
    for name, one in sets.items():
        marked = [row for row in one.rows if row.keywords]
        if one.role == "forget" and marked and all(map(_lacks_keyword, marked)):
            raise UserError(
                f"data.{name}: no answer holds any of its row's keywords (first row: '{marked[0].id}'), so that no "
                "right answer would count; correct the keywords, or leave them out"
            )


def row_warnings(sets: Sets, system_prompt: str | None = None) -> Sentences:
    """Warnings that follow from the rows alone.

    Args:
        sets: all sets that are measured.
        system_prompt: of the model, if one is set.
    """
    found = [sentence for name, one in sets.items() for sentence in _about_set(name, one, system_prompt)]
    return [*found, *_about_pairs(sets)]


def _about_set(name: str, one: EvalSet, system_prompt: str | None) -> Iterator[str]:
    rows, kind = one.rows, "documents" if all(row.text is not None for row in one.rows) else "rows"
    marked = [row for row in rows if row.keywords]
    if lacking := [row for row in marked if _lacks_keyword(row)]:
        yield (
            f"{_count(lacking, marked, name, 'rows with keywords')}: the stored answer holds none of the keywords, so "
            "that the right answer counts as not known."
        )
    if given := [row for row in marked if len(counted_keywords(row, prompt_text(row))) < len(row.keywords)]:
        lost = sum(not counted_keywords(row, prompt_text(row)) for row in given)
        rest = f" {_rows(lost)} no other keyword, and no keyword score." if lost else ""
        yield (
            f"{_count(given, marked, name, 'rows with keywords')}: the question, or what else comes before the answer, "
            f"holds a keyword. Repeating it is no knowledge: such keywords are not counted.{rest}"
        )
    reworded = [(row, row.paraphrased_question) for row in marked if row.paraphrased_question]
    if told := [row for row, question in reworded if not counted_keywords(row, prompt_text(row, question))]:
        yield (
            f"{_count(told, [row for row, _ in reworded], name, 'rows with a paraphrased question')}: that question "
            "holds every keyword, so that there is no keyword score for it."
        )
    if system_prompt and (told := [row for row in marked if holds_any(system_prompt, row.keywords)]):
        yield (
            f"{_count(told, marked, name, 'rows with keywords')}: model.system_prompt holds a keyword, so that the "
            "model reads the fact in its prompt."
        )
    if told := [row for row in rows if not row.keywords and _tells_answer(row)]:
        yield f"{_count(told, rows, name, kind)}: what comes before the answer already holds it, or most of its words."
    if repeats := _repeats(rows):
        yield (
            f"{_count(repeats, rows, name, kind)}: the same {'text' if kind == 'documents' else 'question'} as an "
            f"earlier row. Only {len(rows) - len(repeats)} are distinct, so that n counts more rows than there are and "
            "intervals are too narrow."
        )
    if len(rows) < FEW_ROWS:
        yield f"{name}: only {len(rows)} {kind if len(rows) > 1 else kind[:-1]}; a score over so few says little."


def _about_pairs(sets: Sets) -> Iterator[str]:
    """Forget questions that other sets contain in another wording."""
    forget = [row for one in sets.values() if one.role == "forget" for row in one.rows]
    wordings = {normalise(row.paraphrased_question): row for row in forget if row.paraphrased_question}
    asked = {row.key: row for row in forget}
    for name, one in sets.items():
        if one.role == "forget":
            continue
        same = [row for row in one.rows if row.key in wordings]
        same += [row for row in one.rows if row.paraphrased_question and normalise(row.paraphrased_question) in asked]
        if same:
            yield (
                f"{_count(same, one.rows, name, 'rows')}: in another wording the question is one to forget, so "
                "that the two sets want opposite answers."
            )


def answer_warnings(sets: Sets, measured: Measured, when: str = "") -> Sentences:
    """Warnings that follow from one model's answers.

    Args:
        sets: that were measured.
        measured: of the model.
        when: how a sentence begins, e.g. `Before the run, `.
    """
    cut: dict[str, list[str]] = {}
    same: list[str] = []
    for name, items in measured.evidence.items():
        config = sets[name].config
        asked = [item for item in items if item.example.question is not None]
        greedy = [(item.greedy_ended, item.greedy) for item in asked if item.greedy_ended is not None]
        samples = [pair for item in asked for pair in zip(item.samples_ended, item.samples, strict=True)]
        for texts, what in ((greedy, "greedy answers"), (samples, "sampled answers")):
            ends = [text for ended, text in texts if not ended]
            if len(ends) > CUT_SHARE * len(texts):
                before_answer = sum(not text for text in ends) > len(ends) / 2
                option = "max_reasoning_tokens" if before_answer else "max_new_tokens"
                where = f"evaluate.{option} = {getattr(config, option)}"
                early = [item for item in asked if _ended_early(item, config.max_new_tokens)]
                if texts is greedy and len(early) > len(ends) / 2:
                    where = _POSITIONS
                cut.setdefault(where, []).append(f"{len(ends)} of {len(texts)} {what} ({name})")
        sampled = [len(set(item.samples)) == 1 for item in items if len(item.samples) > 1]
        if sampled and config.temperature < 1 and sum(sampled) >= SAME_SAMPLES * len(sampled):
            same.append(f"{sum(sampled)} of {len(sampled)} {name} rows at evaluate.temperature {config.temperature:g}")
    sentences = [
        f"{when}{', '.join(parts)} met the limit of {where}, so any later text was not scored. "
        + (_ROOM if where == _POSITIONS else _RAISE)
        for where, parts in cut.items()
    ]
    sentences += [f"{when}{sentence}" for sentence in (*_other_forms(measured), *_unknown_kinds(measured))]
    if same:
        sentences.append(
            f"{when}all samples were the same text for {' and '.join(same)}: sampling tried nothing that the greedy "
            "answer did not."
        )
    return [sentence[0].upper() + sentence[1:] for sentence in sentences]


def _ended_early(item: Item, limit: int) -> bool:
    """Whether a greedy answer was cut before the configured limit: the model has no position for another token."""
    return item.greedy_ended is False and item.greedy_ids is not None and len(item.greedy_ids) < limit


def _other_forms(measured: Measured) -> Iterator[str]:
    """Forget answers that contain a keyword, but not as a whole word."""
    for name, items in measured.evidence.items():
        if measured.roles.get(name) != "forget":
            continue
        pairs = [
            (item, counted_keywords(item.example, prompt_text(item.example, None, item.continuation), item.match))
            for item in items
            if item.greedy is not None and item.match != "word"
        ]
        leaks = [(item, keywords) for item, keywords in pairs if holds_any(item.greedy or "", keywords, item.match)]
        forms = [item for item, keywords in leaks if not holds_any(item.greedy or "", keywords, "word")]
        if forms:
            yield (
                f"{len(forms)} of the {len(leaks)} leaks among greedy answers ({name}) hold a keyword only in another "
                f"form, e.g. inflected or within a longer word (first row: '{forms[0].example.id}'). They count; with "
                'evaluate.match = "word" they would not.'
            )


def _unknown_kinds(measured: Measured) -> Iterator[str]:
    """Answers whose kind the rules for English cannot determine."""
    for name, labels in measured.kinds.items():
        asked = [item for item in measured.evidence[name] if item.greedy is not None]
        if lacking := len(asked) - sum(label is not None for label in labels):
            yield (
                f"the kind of {lacking} of {len(asked)} greedy answers ({name}) is not told: no leaks, and in a "
                "language for which refusals and made-up answers are not told apart. A file of refusals in that "
                "language (evaluate.kinds.refusals) changes that."
            )


def known_warnings(measured: Measured, when: str = "Before the run") -> Sentences:
    """Sets that the original model hardly knew: it can neither forget nor lose them.

    Args:
        measured: of the original model.
        when: how a sentence begins.
    """
    sentences = []
    for name, role in measured.roles.items():
        if role == "holdout" or name not in measured.evidence:
            continue
        known = known_rows(measured, name)
        share = KNOWN_SHARE if role == "forget" else UTILITY_SHARE
        if known:
            few = sum(known) < share * len(known)
            what = f"said the fact of only {sum(known)} of {len(known)} {name} rows"
        else:
            overlap = measured.scores.get(name, {}).get("rouge_l_recall")
            few = overlap is not None and overlap.value is not None and overlap.value < KNOWN_OVERLAP
            what = f"hardly knew the {name} rows (ROUGE-L recall {overlap.value:.2f})" if few and overlap else ""
        if few:
            end = "forgetting can be seen on no others" if role == "forget" else "what it kept of them tells little"
            sentences.append(f"{when} the model {what}: {end}.")
    return sentences


def plain_warnings(original: Sequence[float | str]) -> Sentences:
    """The same for the rows that are attacked: an attack cannot recover what was never known.

    Args:
        original: for each row whether the original model states its fact when asked directly, or the reason that this
            is unknown.
    """
    known = [value > 0 for value in original if not isinstance(value, str)]
    if sum(known) >= KNOWN_SHARE * len(known):
        return []
    return [
        f"Asked plainly, the original model said the fact of only {sum(known)} of {len(known)} rows: what it did not "
        "know cannot be recovered."
    ]


def doubts(sets: Sets, before: Measured) -> Sentences:
    """Reasons why silence after a run is no sign of forgetting, as clauses for the verdict.

    Args:
        sets: that were measured.
        before: of the original model.
    """
    found = []
    for name, one in sets.items():
        if one.role != "forget":
            continue
        known = known_rows(before, name)
        too_few = sum(known) < FEWEST_QUESTIONS <= len(known) and sum(known) < KNOWN_SHARE * len(known)
        if too_few or sum(known) < HARDLY_KNOWN * len(known):
            found.append(f"before the run the model said the fact of only {sum(known)} of {len(known)} {name} rows")
        greedy = [item.greedy_ended for item in before.evidence[name] if item.example.question is not None]
        if greedy and greedy.count(False) >= 0.5 * len(greedy):
            found.append(
                f"{greedy.count(False)} of {len(greedy)} answers to {name} rows met the limit of tokens before the run "
                "already"
            )
        distinct = len(one.rows) - len(_repeats(one.rows))
        if distinct < FEWEST_QUESTIONS <= len(one.rows):
            found.append(f"only {distinct} of {len(one.rows)} {name} rows are distinct, too few to rule out a leak")
    return found


def known_rows(measured: Measured, name: str) -> list[bool]:
    """For each row of a set with a keyword score, whether the model stated its fact for any prompt."""
    columns = [measured.values[name][metric] for metric in KEYWORD_METRICS if metric in measured.values[name]]
    rows = ([value for value in row if not isinstance(value, str)] for row in zip(*columns, strict=True))
    return [max(numbers) > 0 for numbers in rows if numbers]


def _lacks_keyword(row: Example) -> bool:
    """Whether no accepted answer of a row with keywords contains one that counts."""
    counted = counted_keywords(row, prompt_text(row))
    right = (row.answer or row.text or "", *row.accepted_answers)
    return bool(counted) and not any(holds_any(text, counted) for text in right)


def _tells_answer(row: Example) -> bool:
    """Whether a row without keywords is answered by its own prompt; single letters and spelt-out options aside."""
    if row.answer is None or row.options or len(row.answer) < 4:
        return False
    words = set(row.answer.split())
    started = [word for word in words if row.answer_start and holds_any(row.answer_start, [word])]
    return holds_any(prompt_text(row), [row.answer]) or len(started) > 0.5 * len(words)


def _repeats(rows: Sequence[Example]) -> list[Example]:
    """Rows with the question of an earlier row."""
    seen: Counter[tuple[object, ...]] = Counter()
    found = []
    for row in rows:
        key = (row.key, row.system, row.history, row.answer_start, row.options)
        if seen[key]:
            found.append(row)
        seen[key] += 1
    return found


def _count(some: Sequence[Example], among: Sequence[Example], name: str, what: str) -> str:
    """`forget: 3 of 20 rows with keywords (first: 'a-1')`."""
    return f"{name}: {len(some)} of {len(among)} {what} (first: '{some[0].id}')"


def _rows(count: int) -> str:
    return "1 row has" if count == 1 else f"{count} rows have"
