"""White-box measures: the two ends on taught models, what lies between, and each formula by hand."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from expunge.core import plugins
from expunge.core.errors import UserError
from expunge.data.example import Example
from expunge.evaluate.whitebox import cka
from expunge.evaluate.whitebox._scores import depth_score
from expunge.evaluate.whitebox.base import gap_shares
from expunge.evaluate.whitebox.cka import Kernel, weighted_cka
from expunge.evaluate.whitebox.engine import FOLDER, WhiteBoxSession, counted, measure_whitebox
from expunge.models.base import LanguageModel
from expunge.models.block_outputs import label_states, read_states
from expunge.models.config import ModelConfig
from expunge.models.load import load_model

Examples = dict[str, tuple[Example, ...]]
NAMES = plugins.names(FOLDER)


@pytest.fixture
def original(tiny_folder: Path) -> Callable[[], LanguageModel]:
    return lambda: load_model(ModelConfig(name=str(tiny_folder), precision="float32"))


@pytest.fixture
def retrained(retrained_folder: Path) -> Callable[[], LanguageModel]:
    return lambda: load_model(ModelConfig(name=str(retrained_folder), precision="float32"))


Load = Callable[[], LanguageModel]


def test_the_original_is_not_deep_and_the_retrained_is(original: Load, retrained: Load, examples: Examples) -> None:
    """By construction: 0 where nothing was done, 1 where the reference itself is measured, whatever the measure."""
    rows = examples["forget"]
    nothing = measure_whitebox(NAMES, original, original, retrained, rows)
    all_of_it = measure_whitebox(NAMES, original, retrained, retrained, rows)
    for name in NAMES:
        for score, value in ((nothing[name], 0.0), (all_of_it[name], 1.0)):
            assert score.value == pytest.approx(value, abs=1e-4), name
            assert score.low == pytest.approx(value, abs=1e-4)
            assert score.high == pytest.approx(value, abs=1e-4)
            assert (score.n, score.better, score.reference) == (8, "higher", "retrained")


def test_half_way_is_between(original: Load, retrained: Load, examples: Examples) -> None:
    """The model that counts as retrained has the retrained one's top block on the original's; weights go half way."""

    def towards(share: float) -> LanguageModel:
        model, other = original(), retrained()
        prefix = f"{model.blocks()[-1][0]}."
        theirs = dict(other.base.named_parameters())
        with torch.no_grad():
            for name, weight in model.base.named_parameters():
                if name.startswith(prefix):
                    weight.lerp_(theirs[name], share)
        return model

    found = measure_whitebox(NAMES, original, lambda: towards(0.5), lambda: towards(1), examples["forget"])
    for name, score in found.items():
        assert score.value is not None
        assert score.low is not None
        assert score.high is not None
        assert 0.001 < score.value < 0.999, name
        assert score.low <= score.value <= score.high


def test_a_refusing_head_leaves_the_states_as_they_are(original: Load, retrained: Load, examples: Examples) -> None:
    """A model whose output matrix alone was spoilt says nothing any more, and is still the original inside."""

    def mute() -> LanguageModel:
        model = original()
        with torch.no_grad():
            model.base.config.tie_word_embeddings = False
            model.output_matrix.weight = torch.nn.Parameter(-model.output_matrix.weight)  # type: ignore[operator, arg-type]
        return model

    found = measure_whitebox(["uds", "logit_lens", "cka"], original, mute, retrained, examples["forget"])
    assert [score.value for score in found.values()] == pytest.approx([0, 0, 0], abs=1e-4)


def test_models_are_loaded_one_at_a_time_and_only_when_wanted(
    original: Load, retrained: Load, examples: Examples
) -> None:
    loaded: list[str] = []

    def noted(name: str, load: Load) -> Load:
        def loader() -> LanguageModel:
            loaded.append(name)
            return load()

        return loader

    parts = noted("original", original), noted("unlearned", original), noted("retrained", retrained)
    measure_whitebox(["uds", "cka"], *parts, examples["forget"][:2])
    assert loaded == ["retrained", "unlearned", "original"]
    loaded.clear()
    measure_whitebox(["masked_fisher"], *parts, examples["forget"][:2])
    assert loaded == ["original", "retrained", "unlearned", "original"]


def test_several_models_beside_the_same_two(original: Load, retrained: Load, examples: Examples) -> None:
    """The same numbers as one by one, and the other two models are loaded once for all."""
    loads: list[str] = []

    def noted(name: str, load: Load) -> Load:
        return lambda: loads.append(name) or load()  # type: ignore[func-returns-value]

    rows = examples["forget"][:3]
    session = WhiteBoxSession(NAMES, noted("original", original), noted("retrained", retrained), rows)
    for label, load in (("one", original), ("other", retrained)):
        session.observe(load(), label)
    found = session.scores()
    assert loads == ["original", "retrained", "original"]
    for label, load in (("one", original), ("other", retrained)):
        alone = measure_whitebox(NAMES, original, load, retrained, rows)
        assert {name: score.value for name, score in found[label].items()} == pytest.approx(
            {name: score.value for name, score in alone.items()}, abs=1e-4
        )


def test_gaps_by_hand() -> None:
    """Blocks with gaps 0.04 (below 0.05), 1 and 3: (clip(0.5) + clip(4 -> 3)) / 4; a gap below 0 counts as none."""
    reference = np.array([[0.04, 1.0, 3.0], [0.05, 1.0, 3.0], [0.04, 0.05, 0.0]])
    shares, means = gap_shares(reference, np.array([[9.0, 0.5, 4.0], [0.0, -1.0, 3.0], [1.0, 1.0, 1.0]]), 0.05)
    nan = np.nan
    np.testing.assert_allclose(shares, [[nan, 0.5, 1], [nan, 0, 1], [nan, nan, nan]])
    np.testing.assert_allclose(means, [3.5 / 4, 3 / 4, nan])


@pytest.mark.parametrize("columns", [2048, 3])
def test_alignment_against_features(columns: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """`||X'Y||^2 / (||X'X|| ||Y'Y||)` of centred features (arXiv:1905.00414, eq. 5); a weight of 2 is a second copy."""
    generator = np.random.default_rng(0)
    one, other = generator.normal(size=(7, 4)), generator.normal(size=(7, 5)) + 3
    weights = np.array([[1, 1, 1, 1, 1, 1, 1], [2, 0, 1, 1, 3, 0, 1]], dtype=float)
    monkeypatch.setattr(cka, "_COLUMNS", columns)
    kernels = [Kernel(torch.from_numpy(some)) for some in (one, other)]
    for row, found in zip(weights, weighted_cka(*kernels, weights), strict=True):
        first, second = (np.repeat(some, row.astype(int), axis=0) for some in (one, other))
        first, second = first - first.mean(0), second - second.mean(0)
        cross, own, theirs = (np.linalg.norm(a.T @ b) for a, b in ((first, second), (first, first), (second, second)))
        assert found == pytest.approx(cross**2 / (own * theirs))
    assert weighted_cka(Kernel(torch.ones(3, 2)), Kernel(torch.eye(3)), np.ones((1, 3))) == pytest.approx(0)


def test_the_interval_is_over_rows() -> None:
    """Mean of 0 and 1 over 2 rows: a draw takes both from one row in half of all cases, so the interval is [0, 1]."""
    values = np.array([0.0, 1.0])
    score = depth_score(lambda weights: weights @ values / weights.sum(axis=1), 2, 0)
    assert (score.value, score.low, score.high, score.n) == (0.5, 0.0, 1.0, 2)


def test_the_lens_reads_the_last_block_as_the_model_does(original: Load, examples: Examples) -> None:
    model = original()
    row = counted(model.encoder, examples["forget"][0])
    states = label_states(model, [row])[0]
    logp = read_states(model, states[-1], torch.tensor(row.labels))
    whole = model.base(input_ids=torch.tensor([row.ids])).logits[0].log_softmax(-1)
    expected = [float(whole[place - 1, label].detach()) for place, label in zip(row.places, row.labels, strict=True)]
    assert logp.tolist() == pytest.approx(expected, abs=1e-4)


def test_the_tokens_that_count(original: Load, examples: Examples) -> None:
    encoder = original().encoder
    row = examples["forget"][0]
    assert any(word in encoder.decode(counted(encoder, row).labels) for word in row.keywords)
    plain = Example(id="a", question="Who?", answer=row.answer)
    assert encoder.decode(counted(encoder, plain).labels) == row.answer
    assert encoder.end_id not in counted(encoder, plain).labels


def test_nothing_to_forget_is_absent(original: Load, examples: Examples) -> None:
    for name, score in measure_whitebox(NAMES, original, original, original, examples["forget"][:3]).items():
        assert score.value is None, name
        assert score.reason is not None
        assert "nothing that could have been forgotten" in score.reason


def test_mistakes(original: Load, examples: Examples) -> None:
    rows = examples["forget"][:2]
    with pytest.raises(UserError, match="no 'udz'; did you mean uds"):
        measure_whitebox(["udz"], original, original, original, rows)
    with pytest.raises(UserError, match=r"whitebox\.options\.uds\.threshold: .*greater than or equal to 0"):
        measure_whitebox(["uds"], original, original, original, rows, options={"uds": {"threshold": -1}})
    with pytest.raises(UserError, match="no forget rows"):
        measure_whitebox(["uds"], original, original, original, [])

    def shorter() -> LanguageModel:
        model = original()
        del model.base.model.layers[-1]  # type: ignore[union-attr]
        model.base.config.num_hidden_layers -= 1
        return model

    with pytest.raises(UserError, match="differs from the other models in tokenizer, blocks or width"):
        measure_whitebox(["uds"], original, shorter, original, rows)
