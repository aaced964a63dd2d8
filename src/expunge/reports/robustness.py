"""The robustness card: knowledge before, after, and after each attack, and the cost of each attack."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from typing import NamedTuple

from expunge.core.attack_record import MOST_WEIGHTS, Access, AttackPoint, AttackResult, AttackScore, Robustness
from expunge.core.plugins import attribute, describe, names
from expunge.core.report_section import Cell, Chart, Mark, ReportSection, Series, Table
from expunge.core.schema import Score
from expunge.reports.formats import percent

ATTACKS = "attacks"
"""The folder whose files are the attacks."""
BEFORE = "before unlearning"
PLAIN = "asked plainly"
HAS: dict[Access, str] = {"prompts": "prompts only", "logits": "its logits", "weights": "its weights"}
"""The access that an adversary has."""
_NOTES = (
    "Knowledge is the share of the attacked forget rows whose fact the model states. In brackets: 95% intervals over "
    "rows; rows about one person or document are resampled together.",
    "Recovered: (attacked - unlearned) / (before - unlearned), paired by row. 1: all of it is back; 0: nothing; below "
    "0: under the attack the model states less than when it is asked plainly.",
    "The worst case takes for each row the best of all variants of an attack and of asking plainly, as a patient "
    "adversary would; this also counts lucky guesses. The result of the same attack on a model that never knew is "
    "shown if one was given (--reference).",
    "Rounding, pruning and noise harm any model. Where the original also stops answering under them (its own column), "
    "the attack is uninformative.",
)


class Hit(NamedTuple):
    """The most successful variant of an attack."""

    attack: AttackResult
    score: AttackScore
    value: float

    @property
    def name(self) -> str:
        """`relearning (forget, 8 rows, full)`."""
        variant = "" if self.score is self.attack.worst else self.score.variant
        covered = self.attack.covered
        only = only_share(covered) if covered is not None and covers_too_little(self.attack) else ""
        detail = ", ".join(part for part in (variant, only) if part)
        return f"{attack_title(self.attack.name)} ({detail})" if detail else attack_title(self.attack.name)


@cache
def attack_title(name: str) -> str:
    """`soft_prompt` -> `soft prompt`, `gcg` -> `GCG`: the name as the attack's own documentation writes it."""
    plain = name.replace("_", " ")
    if name not in names(ATTACKS):
        return plain
    title = describe(ATTACKS, name).summary.partition(":")[0]
    return title if title.casefold() == plain.casefold() and title.isupper() else plain


@cache
def threats() -> tuple[str, ...]:
    """Every threat that a shipped attack can test (`Attack.tries`), those that need the least access first."""
    shipped = sorted(names(ATTACKS), key=lambda name: list(HAS).index(attribute(ATTACKS, name, "access")))
    return tuple(dict.fromkeys(threat for name in shipped for threat in attribute(ATTACKS, name, "tries") or ()))


def _title(name: str) -> str:
    """The name at the start of a sentence."""
    return attack_title(name)[:1].upper() + attack_title(name)[1:]


def covers_too_little(attack: AttackResult) -> bool:
    """Whether an attack changed too few weights to have tested the model."""
    return attack.covered is not None and attack.covered < MOST_WEIGHTS


def only_share(covered: float) -> str:
    """`on only 11% of the decoder blocks' weights`."""
    return f"on only {_percent_of_weights(covered)} of the decoder blocks' weights"


def _percent_of_weights(share: float) -> str:
    """`99.3%`, rounded down, so that neither 100% nor the limit is shown where it was not reached."""
    tenths = math.floor(1000 * share + 1e-9) / 10
    return f"{tenths:g}%"


def worst_answers(attack: AttackResult) -> AttackScore | None:
    """The most that answers to an attack gave away; None if it asked for no answers, or got none."""
    if attack.worst is not None:
        return attack.worst
    return next((one for one in attack.variants if one.measure is None), None)


def worst_attack(card: Robustness, access: Access | None = None) -> Hit | None:
    """The attack that drew out the most answers, of all or of those with this access; the earliest of equals."""
    hits = [
        Hit(one, score, score.knowledge.value)
        for one in card.attacks
        if (access is None or one.access == access)
        and (score := worst_answers(one)) is not None
        and score.knowledge.value is not None
    ]
    return max(hits, key=lambda hit: hit.value, default=None)


def worst_case_clause(card: Robustness) -> str:
    """The worst case for each kind of access: `40% [23, 59] with prompts only (prompting)`; "" without attacks."""
    parts = []
    plain = 0.0 if card.unlearned is None or card.unlearned.value is None else card.unlearned.value
    for access, words in HAS.items():
        if (hit := worst_attack(card, access)) is not None:
            if hit.value < plain:  # over fewer rows: those that the adversary was given are left out
                parts.append(f"no more with {words} ({hit.name}, n={hit.score.knowledge.n}) than asking plainly")
                continue
            shown = percent(hit.value, hit.score.knowledge.low, hit.score.knowledge.high)
            excess = hit.score.excess
            beyond = ""
            if excess is not None and excess.value is not None:
                beyond = f", {percent(excess.value, excess.low, excess.high)} beyond a model that never knew"
            parts.append(f"{shown} with {words} ({hit.name}{beyond})")
    return " and ".join(parts) if len(parts) < 3 else f"{', '.join(parts[:-1])} and {parts[-1]}"


def robustness_section(card: Robustness, warnings: Sequence[str] = ()) -> ReportSection:
    """The card as a sentence, tables and figures.

    Args:
        card: results of the attacks.
        warnings: shown first among the notes.
    """
    return ReportSection(
        title="Robustness",
        sentence=_sentence(card),
        notes=[*(f"Warning: {warning}" for warning in warnings), *_NOTES, *_covered(card), *_broken(card)],
        tables=[table for table in (_card(card), _variants(card), _inside(card)) if table.rows],
        charts=[_bars({"": card}), *_curves(card)],
    )


def shortened(section: ReportSection) -> ReportSection:
    """The verdict, the card and what is particular to it: no table of variants and no explanations."""
    notes = [note for note in section.notes if note not in _NOTES]
    notes.append("All variants and explanations: --verbose, or the report.")
    return section.model_copy(update={"tables": section.tables[:1], "notes": notes})


def compared(cards: Mapping[str, Robustness]) -> ReportSection:
    """Several cards side by side.

    Args:
        cards: label -> card; at least one.
    """
    labels = dict.fromkeys(
        attack_title(one.name) for card in cards.values() for one in card.attacks if worst_answers(one)
    )
    rows: list[list[Cell]] = [
        [label, *(_places(card).get(label) for card in cards.values())] for label in (BEFORE, PLAIN, *labels)
    ]
    hits = {name: hit for name, card in cards.items() if (hit := worst_attack(card)) is not None}
    least = min(hits, key=lambda name: hits[name].value, default=None)
    gains = ", ".join(f"{name} {percent(hit.value)} ({hit.name})" for name, hit in hits.items())
    lead = f"In the worst case an adversary gets least from {least}: {gains}."
    same = {tuple(attack_title(one.name) for one in card.attacks) for card in cards.values()}
    notes = [] if len(same) == 1 else ["Not all were attacked alike: compare within a line of the table only."]
    return ReportSection(
        title="Robustness side by side",
        sentence=lead if least else "None of them was attacked yet.",
        notes=[_NOTES[0], *notes],
        tables=[Table(caption="Knowledge after each attack, worst case", columns=["attack", *cards], rows=rows)],
        charts=[_bars(cards)],
    )


def _sentence(card: Robustness) -> str:
    before, after = card.original, card.unlearned
    if after is None or after.value is None:
        return "Nothing was attacked yet."
    known = (
        "" if before is None or before.value is None else f" (before: {percent(before.value, before.low, before.high)})"
    )
    start = f"Asked plainly, the model states {percent(after.value, after.low, after.high)} of {after.n} facts{known}"
    found = worst_case_clause(card)
    return f"{start}; attacked, at worst {found}." if found else f"{start}; its answers were not attacked."


def _covered(card: Robustness) -> list[str]:
    """The share of the weights that each attack on weights changed."""
    shares = [
        f"{attack_title(one.name)} {_percent_of_weights(one.covered)}"
        f"{' (not a test)' if covers_too_little(one) else ''}"
        for one in card.attacks
        if one.covered is not None
    ]
    if not shares:
        return []
    return [
        "Weights changed, of all in the decoder blocks, norms, biases and routers included: "
        f"{', '.join(shares)}. An attack that changes less than {MOST_WEIGHTS:.0%} does not count as a test."
    ]


def _broken(card: Robustness) -> list[str]:
    """One line for each attack that failed or was cut short."""
    reasons = [(one, one.failed or one.cut) for one in card.attacks]
    limit = "" if card.budget is None else f" (limit: {card.budget:g} s)"
    return [
        f"{attack_title(one.name)}: {'failed: ' if one.failed and one.variants else ''}{reason}"
        f"{limit if one.cut else ''}."
        for one, reason in reasons
        if reason
    ]


def _card(card: Robustness) -> Table:
    names = list(card.controls)
    rows: list[list[Cell]] = []
    nothing: list[Cell] = [None] * 4
    rows.append([BEFORE, card.original, None, *([None] * len(names)), *nothing])
    rows.append([PLAIN, card.unlearned, None, *(card.controls[name] for name in names), *nothing])
    for one in card.attacks:
        if (score := worst_answers(one)) is None:
            continue
        count = _answer_variants(one)
        variant = "" if one.worst is None else f" (worst of {count})" if count > 1 else " (or asking plainly)"
        rows.append([f"{attack_title(one.name)}{variant}", *_cells(score, names), one.access])
    return Table(caption="Robustness card", columns=["attack", *_columns(names), "needs"], rows=rows)


def _answer_variants(one: AttackResult) -> int:
    return sum(score.measure is None for score in one.variants)


def _variants(card: Robustness) -> Table:
    names = list(card.controls)
    rows: list[list[Cell]] = [
        [attack_title(one.name), score.variant or "only variant", *_cells(score, names)]
        for one in card.attacks
        for score in one.variants
        if score.measure is None and (score.variant or one.worst)
    ]
    return Table(caption="Every variant", columns=["attack", "variant", *_columns(names)], rows=rows)


def _inside(card: Robustness) -> Table:
    names = list(card.controls)
    rows: list[list[Cell]] = [
        [attack_title(one.name), score.variant, score.measure, *_cells(score, names)[:-1], score.knowledge.chance]
        for one in card.attacks
        for score in one.variants
        if score.measure is not None
    ]
    columns = ["attack", "variant", "measure", *_columns(names)[:-1], "chance"]
    return Table(caption="Knowledge in hidden states, and other measures without answers", columns=columns, rows=rows)


def _columns(controls: list[str]) -> list[str]:
    return ["knowledge", "recovered", *controls, "rows given", "steps", "time, s"]


def _cells(score: AttackScore, controls: list[str]) -> list[Cell]:
    own: list[Cell] = [score.controls.get(name) for name in controls]
    return [
        score.knowledge,
        score.recovered,
        *own,
        score.given,
        score.steps,
        round(score.seconds, 1 if score.seconds < 10 else None),
    ]


def _places(card: Robustness) -> dict[str, Score]:
    """Label -> knowledge: before, after, and after each attack."""
    found = {BEFORE: card.original, PLAIN: card.unlearned}
    found |= {
        attack_title(one.name): score.knowledge for one in card.attacks if (score := worst_answers(one)) is not None
    }
    return {label: score for label, score in found.items() if score is not None}


def _bars(cards: Mapping[str, Robustness]) -> Chart:
    series = []
    for name, card in cards.items():
        known = {label: score for label, score in _places(card).items() if score.value is not None}
        reach = [(score.value, score.low, score.high) for score in known.values() if score.value is not None]
        series.append(
            Series(
                name=name or "knowledge",
                x=list(known),
                y=[value for value, _, _ in reach],
                low=[value if low is None else low for value, low, _ in reach],
                high=[value if high is None else high for value, _, high in reach],
                tone="unlearned" if len(cards) == 1 else None,
            )
        )
    return Chart(
        title="Knowledge before, after, and after each attack",
        caption="Worst case over an attack's variants, with 95% intervals.",
        across="",
        up="share of facts stated",
        style="bar",
        series=series,
    )


def _curves(card: Robustness) -> Iterator[Chart]:
    """For each attack whose strength or length varies, knowledge at each setting."""
    for one in card.attacks:
        for along in dict.fromkeys(score.along for score in one.variants if score.curve):
            some = [score for score in one.variants if score.curve and score.along == along]
            series = [
                _line(score.variant or attack_title(one.name), score.curve, hue) for hue, score in enumerate(some)
            ]
            for weight, name in enumerate(card.controls, start=1):
                series += [
                    _line(
                        f"{name}: {score.variant}" if score.variant else name, score.control_curves[name], hue, weight
                    )
                    for hue, score in enumerate(some)
                    if name in score.control_curves
                ]
            controlled = len(series) > len(some)
            plain = card.unlearned.value if card.unlearned is not None else None
            level = [Mark(text=PLAIN, axis="y", at=plain)] if plain is not None and some[0].measure is None else []
            yield Chart(
                title=f"{_title(one.name)}, along {along}",
                caption="Dashed: the control models." if controlled else "",
                across=along,
                up=some[0].measure or "share of facts stated",
                style="line",
                series=series,
                marks=level,
            )


def _line(name: str, curve: list[AttackPoint], hue: int, weight: int = 0) -> Series:
    known = [point for point in curve if point.knowledge.value is not None]
    return Series(
        name=name,
        x=[point.at for point in known],
        y=[point.knowledge.value for point in known if point.knowledge.value is not None],
        hue=hue,
        weight=weight,
    )
