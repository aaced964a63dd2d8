"""The three numbers at the top of a report: asked plainly, at worst, and what is kept of the rest."""

from __future__ import annotations

from expunge.core.records import Frozen, Record
from expunge.reports.formats import ABSENT, percent, sentence_case
from expunge.reports.leaks_and_utility import find, leak_metrics, leaks, utility, worst
from expunge.reports.metric_texts import metric_title, probe
from expunge.reports.robustness import HAS, worst_attack


class KeyNumber(Frozen):
    """One number with what it is."""

    name: str
    value: str
    interval: str = ""
    about: str


def key_numbers(record: Record) -> list[KeyNumber]:
    """Plain asking, the worst of all that was tried, and the split that kept least."""
    return [_plain(record), _worst(record), _kept(record)]


def short_verdict(outcome: str, cost: str) -> str:
    """The conclusion in one short sentence."""
    lead = {
        "forgotten": "What was tried does not bring the knowledge back",
        "partly": "Some of the knowledge still comes out",
        "not forgotten": "The knowledge still comes out",
        "cannot be told": "Whether the knowledge is gone cannot be told from these scores",
    }.get(outcome, "These scores do not measure forgetting")
    tail = {
        "harmed": "and the rest of the model was harmed",
        "unclear": "and the rest of the model may have been harmed",
        "unharmed": "and the rest of the model kept its knowledge",
    }.get(cost, "and what it cost was not measured")
    return f"{lead}, {tail}."


def _plain(record: Record) -> KeyNumber:
    metrics = leak_metrics(record.after)
    after = leaks(record.after, metrics)
    name = "Asked plainly" if not metrics or metrics[0] == "keyword_recall" else sentence_case(metric_title(metrics[0]))
    if not after:
        return KeyNumber(name=name, value=ABSENT, about="the forget rows have no score")
    before = find(record.before, "forget", after[0].metric)
    earlier = f"before: {percent(before.value)}; " if before is not None and before.value is not None else ""
    score = after[0].score
    about = f" about {score.clusters} persons or documents" if score.clusters else ""
    return _number(name, after[0].value, score.low, score.high, f"{earlier}{score.n} questions{about}")


def _worst(record: Record) -> KeyNumber:
    asked = worst(leaks(record.after, leak_metrics(record.after)))
    attack = worst_attack(record.robustness) if record.robustness is not None else None
    name = "At worst"
    if attack is not None and (asked is None or attack.value >= asked.value):
        score = attack.score.knowledge
        return _number(name, attack.value, score.low, score.high, f"{attack.name}, with {HAS[attack.attack.access]}")
    if asked is None:
        return KeyNumber(name=name, value=ABSENT, about="no attack on what it says was carried out")
    about = probe(asked.metric)
    return _number(name, asked.value, asked.score.low, asked.score.high, about)


def _kept(record: Record) -> KeyNumber:
    shares = utility(record)
    if not shares:
        return KeyNumber(name="Utility kept", value=ABSENT, about="no other rows were scored before and after")
    least = min(shares, key=lambda share: share.value)
    others = [f"{share.split} {percent(share.value)}" for share in shares if share is not least]
    about = f"{least.split} rows keep least" + (f"; {', '.join(others)}" if others else "")
    return _number("Utility kept", least.value, least.low, least.high, about)


def _number(name: str, value: float, low: float | None, high: float | None, about: str) -> KeyNumber:
    shown = percent(value, low, high)
    share, _, interval = shown.partition(" ")
    return KeyNumber(name=name, value=share, interval=interval, about=about)
