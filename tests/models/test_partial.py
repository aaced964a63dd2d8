"""A forward pass that starts at the lowest trained block is the full one."""

from __future__ import annotations

from typing import Any

import torch
from random_models import random_network
from transformers import PreTrainedTokenizerBase

from expunge.data.batch import collate
from expunge.data.encode import Encoded
from expunge.data.example import Example
from expunge.models.base import LanguageModel
from expunge.models.config import ModelConfig
from expunge.models.forward import Forward, Needs, RowSet, row_set
from expunge.models.load import wrap_model
from expunge.models.partial import BlockStates, can_enter, first_trained_block

ROWS = [Encoded((5, 6, 7, 8, 9, 10), 3), Encoded((11, 12, 13), 1), Encoded((3, 1, 4, 1, 5, 9, 2, 6), 4)]


def test_every_architecture_gives_the_same_logits_from_kept_block_inputs(random_model: LanguageModel) -> None:
    inputs = BlockStates(random_model, 1, ROWS)
    batch = collate([ROWS[2], ROWS[0]], [2, 0])
    with torch.no_grad():
        full = Forward(random_model, batch).logits()
        started = Forward(random_model, batch, RowSet(ROWS, inputs=inputs)).logits()
    torch.testing.assert_close(started, full, rtol=1e-5, atol=1e-5)


def test_every_architecture_gives_the_hidden_states_that_transformers_gives(random_model: LanguageModel) -> None:
    """`hidden_states[l + 1]` is the output of block l, except for the last, which transformers shows after the norm."""
    batch = collate(ROWS, range(3))
    with torch.no_grad():
        wanted = random_model.decoder(
            input_ids=batch.input_ids, attention_mask=batch.attention_mask, output_hidden_states=True
        ).hidden_states
        plain = Forward(random_model, batch).logits()
        view = Forward(random_model, batch)
        (found,) = view.hidden([0])
        last = len(random_model.blocks()) - 1
        view.hidden([last])
        torch.testing.assert_close(view.logits(), plain, rtol=1e-5, atol=1e-5)
    real = batch.attention_mask.bool()
    torch.testing.assert_close(found[real], wanted[1][real], rtol=1e-5, atol=1e-5)


def test_a_block_gives_what_enters_it_and_what_its_two_parts_write(
    tiny: LanguageModel, examples: dict[str, tuple[Example, ...]]
) -> None:
    """Where both parts are added to the residual stream, as in Llama: h_1 = h_0 + attention + ffn; one pass each."""
    rows = [tiny.encoder.example(row) for row in examples["forget"][:4]]
    view = Forward(tiny, collate(rows, range(4)))
    before, after = view.hidden([0, 1])
    parts = [view.hidden([1], site)[0] for site in ("ffn", "attention")]
    torch.testing.assert_close(after, before + sum(parts), rtol=1e-5, atol=1e-5)
    assert all(part.abs().max() > 0.01 for part in parts)


def test_the_original_outputs_of_a_part_stay_when_weights_move(
    tiny: LanguageModel, examples: dict[str, tuple[Example, ...]]
) -> None:
    tiny.freeze_but([f"{tiny.blocks()[1][0]}.mlp.down_proj.weight"])
    rows = [tiny.encoder.example(row) for row in examples["forget"][:4]]
    kept = row_set(tiny, rows, Needs(reference_hidden=(0, 1), site="ffn"))
    assert all(states.first > 0 for states in kept.hidden.values())
    with torch.no_grad():
        tiny.trainable()[0].mul_(3)
    view = Forward.of(tiny, kept, [2, 0])
    real = view.batch.attention_mask.bool()
    now, original = Forward(tiny, view.batch).hidden([0, 1], "ffn"), view.reference_hidden([0, 1], "ffn")
    torch.testing.assert_close(now[0][real], original[0][real], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(now[1][real], 3 * original[1][real], rtol=1e-5, atol=1e-5)


def test_what_is_known_is_not_computed_again_and_what_lies_above_not_at_all(
    tiny: LanguageModel, examples: dict[str, tuple[Example, ...]]
) -> None:
    rows = [tiny.encoder.example(row) for row in examples["forget"][:4]]
    ran: list[int] = []
    assert can_enter(tiny)
    for index, (_, block) in enumerate(tiny.blocks()):
        block.mlp.register_forward_hook(lambda *_, index=index: ran.append(index))  # type: ignore[union-attr]
    view = Forward(tiny, collate(rows, range(4)))
    view.hidden([1])
    assert ran == [0, 1]
    view.hidden([1])
    view.logits()
    assert ran == [0, 1, 2]


def test_the_original_hidden_states_stay_when_weights_move(
    tiny: LanguageModel, examples: dict[str, tuple[Example, ...]]
) -> None:
    tiny.freeze_but([f"{tiny.blocks()[1][0]}.mlp.down_proj.weight"])
    rows = [tiny.encoder.example(row) for row in examples["forget"][:4]]
    kept = row_set(tiny, rows, Needs(reference_hidden=(1, 2)))
    before = Forward.of(tiny, kept, range(4))
    real = before.batch.attention_mask.bool()
    torch.testing.assert_close(before.hidden([2])[0][real], before.reference_hidden([2])[0][real], rtol=1e-5, atol=1e-5)
    assert not before.reference_hidden([2])[0][~real].any()
    with torch.no_grad():
        tiny.trainable()[0].mul_(3)
    after = Forward.of(tiny, kept, [2, 0])
    real = after.batch.attention_mask.bool()
    assert (after.hidden([1])[0] - after.reference_hidden([1])[0])[real].abs().max() > 0.01
    start = before.reference_hidden([1])[0][[2, 0], : real.shape[1]]
    assert torch.equal(after.reference_hidden([1])[0][real], start[real])


def test_passes_are_tried_from_a_block_of_every_kind(tokenizer: PreTrainedTokenizerBase) -> None:
    """The third of eight blocks reads what the first one left behind, which neither the middle nor the last shows."""
    network = random_network("Llama", num_hidden_layers=8)

    class Reading(type(network.model.layers[2])):  # type: ignore[misc]
        def forward(self, hidden_states: torch.Tensor, **options: Any) -> torch.Tensor:
            return super().forward(hidden_states + self.source[0].mlp.gate_proj.seen, **options)

    def note(module: Any, arguments: Any, output: torch.Tensor) -> None:
        module.seen = output.mean(-1, keepdim=True)

    first, third = network.model.layers[0], network.model.layers[2]
    third.source = [first]
    third.__class__ = Reading
    first.mlp.gate_proj.register_forward_hook(note)
    network.model.register_forward_pre_hook(lambda *_: setattr(first.mlp.gate_proj, "seen", 0.0))
    assert not can_enter(wrap_model(network, tokenizer, ModelConfig(name="reading")))


def test_lower_blocks_are_not_run_and_come_back_afterwards(
    tiny: LanguageModel, examples: dict[str, tuple[Example, ...]]
) -> None:
    rows = [tiny.encoder.example(row) for row in examples["forget"][:4]]
    inputs = BlockStates(tiny, 2, rows)
    inputs.batch(range(4))  # taken before the lower block is changed
    batch = collate(rows, range(4))
    with torch.no_grad():
        before = Forward(tiny, batch).token_logp()
        tiny.blocks()[0][1].mlp.down_proj.weight.mul_(5)  # type: ignore[union-attr, operator]
        started = Forward(tiny, batch, RowSet(rows, inputs=inputs)).token_logp()
        full = Forward(tiny, batch).token_logp()
    torch.testing.assert_close(started, before, rtol=1e-5, atol=1e-5)
    assert not torch.allclose(full, before, atol=1e-2)


def test_gradients_of_trained_blocks_are_those_of_the_full_pass(
    tiny: LanguageModel, examples: dict[str, tuple[Example, ...]]
) -> None:
    prefix = tiny.blocks()[1][0]
    tiny.freeze_but([name for name, _ in tiny.network.named_parameters() if name.startswith(f"{prefix}.")])
    assert first_trained_block(tiny) == 1
    rows = [tiny.encoder.example(row) for row in examples["forget"][:4]]
    batch = collate(rows, range(4))
    gradients = []
    for inputs in (None, BlockStates(tiny, 1, rows)):
        tiny.network.zero_grad()
        Forward(tiny, batch, RowSet(rows, inputs=inputs)).token_logp().sum().backward()
        gradients.append([parameter.grad.clone() for parameter in tiny.trainable() if parameter.grad is not None])
    assert len(gradients[0]) == len(tiny.trainable())
    for full, started in zip(*gradients, strict=True):
        torch.testing.assert_close(started, full, rtol=1e-4, atol=1e-5)


def test_a_trained_embedding_means_that_nothing_can_be_kept(tiny: LanguageModel) -> None:
    tiny.freeze_but([name for name, _ in tiny.network.named_parameters()])
    assert first_trained_block(tiny) == 0
