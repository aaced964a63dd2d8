"""The three numbers at the top of a report: the leak when asked plainly, the worst leak, and the utility kept."""

from __future__ import annotations

from expunge.core.records import Frozen, Record
from expunge.reports.formats import ABSENT, percent, sentence_case
from expunge.reports.leaks_and_utility import find, leak_metrics, leaks, utility, worst
from expunge.reports.metric_texts import metric_title, probe
from expunge.reports.robustness import HAS, worst_attack


class KeyNumber(Frozen):
    """One number with its meaning."""

    name: str
    value: str
    interval: str = ""
    about: str


def key_numbers(record: Record) -> list[KeyNumber]:
    """The leak when asked plainly, the worst of all tested leaks, and the split that kept least."""
    return [_plain(record), _worst(record), _kept(record)]


def short_verdict(outcome: str, cost: str) -> str:
    """The conclusion in one short sentence."""
    lead = {
        "forgotten": "Nothing that was tested brings the knowledge back",
        "partly": "Some of the knowledge still comes out",
        "not forgotten": "The knowledge still comes out",
        "cannot be told": "These scores cannot tell whether the knowledge is gone",
    }.get(outcome, "These scores do not measure forgetting")
    tail = {
        "harmed": "and the rest of the model was harmed",
        "unclear": "and the rest of the model may have been harmed",
        "unharmed": "and the rest of the model kept its knowledge",
    }.get(cost, "and the cost to the rest of the model was not measured")
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
    leak = worst(leaks(record.after, leak_metrics(record.after)))
    attack = worst_attack(record.robustness) if record.robustness is not None else None
    name = "At worst"
    if attack is not None and (leak is None or attack.value >= leak.value):
        score = attack.score.knowledge
        return _number(name, attack.value, score.low, score.high, f"{attack.name}, with {HAS[attack.attack.access]}")
    if leak is None:
        return KeyNumber(name=name, value=ABSENT, about="no test of its answers was carried out")
    about = probe(leak.metric)
    return _number(name, leak.value, leak.score.low, leak.score.high, about)


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
