"""One model measured once: evidence, a number for each row, scores and aggregates."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from expunge.core.progress import SILENT, Progress
from expunge.core.records import Aggregates, Scores
from expunge.data.splits import Splits
from expunge.evaluate.aliases import for_role, named
from expunge.evaluate.answer_kinds import Kinds, Labeller
from expunge.evaluate.base import Metric, SetMetric, SetValues
from expunge.evaluate.config import EvaluateConfig, Role
from expunge.evaluate.evidence import Evidence, collect_sets, sampled, with_original, with_reference
from expunge.evaluate.evidence_cache import EvidenceMemory
from expunge.evaluate.evidence_plan import Ask
from expunge.evaluate.items import Values
from expunge.evaluate.score import (
    Units,
    item_values,
    load_metrics,
    load_set_metrics,
    needs_of,
    score,
    set_values,
    topic_units,
    topic_values,
    units_of,
)
from expunge.evaluate.sets import EvalSet, Sets, sets_of
from expunge.evaluate.summary import summarise
from expunge.models.base import LanguageModel


@dataclass(frozen=True)
class Measured:
    """The measurement of one model at one stage."""

    evidence: Evidence
    values: Values
    kinds: Kinds
    scores: Scores
    aggregates: Aggregates
    roles: Mapping[str, Role] = field(default_factory=dict)
    read_roles: Mapping[str, Role] = field(default_factory=dict)
    """Roles of the sets that set metrics read."""

    @property
    def items(self) -> tuple[Evidence, Values, Kinds]:
        """Evidence, values and kind of answer of every row, as `write_items` takes them."""
        return self.evidence, self.values, self.kinds

    @property
    def units(self) -> Units:
        """The clusters of the rows of each set."""
        return units_of(self.evidence)

    @property
    def set_values(self) -> SetValues:
        """Row values by role."""
        return set_values(self.values, self.read_roles, self.units)


@dataclass(frozen=True)
class Reference:
    """The values of a model that never saw the forget rows, and its evidence if it was measured in this process."""

    values: SetValues
    evidence: Evidence | None = None


def measure(
    model: LanguageModel,
    data: Splits | Sets,
    metrics: Mapping[str, Metric],
    labeller: Labeller,
    config: EvaluateConfig,
    seed: int,
    progress: Progress = SILENT,
    label: str = "measuring",
    *,
    is_original: bool = False,
    original: Evidence | None = None,
    reference: Reference | None = None,
    is_reference: bool = False,
    remember: bool = False,
) -> Measured:
    """Collect the evidence that the metrics need, and score it.

    Args:
        model: any model.
        data: a run's splits or a suite's sets; large ones are sampled by the seed.
        metrics: row metrics by name, for sets that name none.
        labeller: of kinds of answer.
        config: options of the measurement.
        seed: of samples and intervals.
        progress: where to report.
        label: of the progress bar.
        is_original: whether this is the model before unlearning, with whose answers others are compared.
        original: that model's evidence about the same rows.
        reference: values and evidence of the retrained model.
        is_reference: whether this model is that reference, which set metrics are not computed for.
        remember: read evidence from the user's cache, and keep it there.
    """
    sets = sets_of(data, config) if isinstance(data, Splits) else data
    roles = {name: one.role for name, one in sets.items()}
    compared = reference is not None or is_reference or "holdout" in roles.values()
    over_sets = load_set_metrics(config, by_default=compared)
    read_roles = {name: one.role for name, one in sets.items() if one.compared}
    chosen = {
        name: _chosen(_own(one, metrics, config), one.role, over_sets if one.compared else {})
        for name, one in sets.items()
    }
    missing = {metric for names in chosen.values() for metric in names} - set(metrics)
    every = (
        {**metrics, **load_metrics(config.model_copy(update={"metrics": tuple(sorted(missing))}))}
        if missing
        else metrics
    )
    asks = {
        name: Ask(
            sampled(one.rows, one.config.max_rows, seed),
            one.role,
            needs_of({metric: every[metric] for metric in chosen[name]}),
            one.config,
        )
        for name, one in sets.items()
    }
    memory = EvidenceMemory(model, progress=progress) if remember and config.cache else None
    evidence = collect_sets(model, asks, seed, progress, label, memory)
    if is_original or original:
        evidence = with_original(evidence, original or evidence)
    evidence = _beside(evidence, reference)
    values = item_values(evidence, every, chosen, roles)
    units = units_of(evidence)
    scores = score(values, every, seed, roles, units)
    with_topics = {name: evidence[name] for name, one in sets.items() if one.by_topic}
    by_topic = topic_values(with_topics, values)
    topics = {topic: roles[name] for name, found in by_topic.items() for topic in found}
    by_name = {topic: some for found in by_topic.values() for topic, some in found.items()}
    scores |= score(by_name, every, seed, topics, topic_units(with_topics))
    if not is_reference:
        now = set_values(values, read_roles, units)
        then = now if is_original else None
        read = {name for metric in over_sets.values() if metric.needs_original for name in metric.needs_values}
        if original is not None and read:
            some = {name: every[name] for name in read}
            then = set_values(item_values(_beside(original, reference), some, chosen, roles), read_roles, units)
        _add_set_scores(scores, over_sets, now, then, read_roles or roles, reference, seed)
    unlike = [name for name, metric in every.items() if not metric.usual]
    return Measured(
        evidence,
        values,
        labeller.label(evidence, roles),
        scores,
        summarise(values, scores, seed, roles, unlike, units),
        {**roles, **topics},
        read_roles,
    )


def _beside(evidence: Evidence, reference: Reference | None) -> Evidence:
    """Evidence with that of the reference attached, if there is any."""
    if reference is None or reference.evidence is None:
        return evidence
    return with_reference(evidence, reference.evidence)


def _own(one: EvalSet, metrics: Mapping[str, Metric], config: EvaluateConfig) -> tuple[str, ...]:
    """Row metrics of a set: its own, or the common ones; OpenUnlearning's names may hold for one role only."""
    if one.metrics or any(named(name).role for name in config.metrics):
        return for_role(one.metrics or config.metrics, one.role)
    return tuple(metrics)


def _chosen(names: tuple[str, ...], role: Role, over_sets: Mapping[str, SetMetric]) -> tuple[str, ...]:
    """Row metrics of a set: its own, and those that set metrics read; holdout rows have only the latter."""
    read = [name for metric in over_sets.values() if role in metric.roles for name in metric.needs_values]
    own = () if role == "holdout" and read else names
    return tuple(dict.fromkeys((*own, *read)))


def _add_set_scores(
    scores: Scores,
    over_sets: Mapping[str, SetMetric],
    values: SetValues,
    original: SetValues | None,
    roles: Mapping[str, Role],
    reference: Reference | None,
    seed: int,
) -> None:
    """Add the scores of set metrics to those of the first forget set, or else of the first set."""
    place = next((name for name, role in roles.items() if role == "forget"), next(iter(roles)))
    for metric in over_sets.values():
        scores[place] |= metric.scores(values, None if reference is None else reference.values, seed, original)
