"""Probe: tells the right answer from wrong ones in a model that knows it, and not where the labels are drawn."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from attack_ground import Rows, build, carried_out, ground, load, share

from expunge.attacks.base import AttackContext
from expunge.attacks.logit_lens import LogitLens
from expunge.attacks.probe import CONTROL, Probe
from expunge.data.load import examples_from_rows
from expunge.data.sources.fictional import Fictional


def test_a_refusal_hides_nothing_from_a_probe(refusing: AttackContext) -> None:
    found = carried_out(refusing, "probe")
    assert share(found[""]) >= 0.75
    assert share(found[CONTROL]) <= 0.5
    assert found[""].given == len(refusing.splits.retain)


def test_facts_that_nobody_taught_are_told_at_chance(tiny_folder: Path, examples: Rows) -> None:
    """64 questions about unknown authors: chance 0.25 has a standard error of 0.054."""
    source = Fictional(Fictional.Config(authors=60, questions=4, forget_authors=2))
    known = {row.subject for rows in examples.values() for row in rows}
    rows = [row for row in examples_from_rows(source.rows("retain"), "new") if row.subject not in known][-64:]
    for attempt in carried_out(ground(load(tiny_folder), examples, rows=rows), "probe").values():
        assert abs(share(attempt) - 0.25) < 3 * 0.054


def test_it_shares_its_pass_over_the_forget_rows_with_the_lens(refusing: AttackContext) -> None:
    list(LogitLens(LogitLens.Config()).run(refusing))
    kept = refusing.cache["choices/3"]
    list(Probe(Probe.Config()).run(refusing))
    assert refusing.cache["choices/3"] is kept


def test_a_planted_feature_is_found_and_only_in_its_block() -> None:
    """In block 1 the right answer of every row has more along the first axis; block 0 is noise."""
    generator = np.random.default_rng(0)
    states = generator.normal(size=(40, 4, 2, 8))
    states[:, 0, 1, 0] += 10
    states -= states.mean(axis=1, keepdims=True)
    probe = build("probe", folds=4)
    assert isinstance(probe, Probe)
    found = probe._scored(states, 20, np.zeros(40, dtype=np.int64), torch.arange(20))
    assert found[1].mean() == 1
    assert found[0].mean() < 0.6
