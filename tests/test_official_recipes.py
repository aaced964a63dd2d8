"""Recipes that follow published code, beside plain loops over whole batches of logits that share no loss with them."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_llama import tiny_llama
from torch import Tensor
from torch.nn import functional as F
from transformers import PreTrainedTokenizerFast

from expunge.combine.orthogonal import Orthogonal
from expunge.config import load_run
from expunge.core.catalog import recipe_names
from expunge.data.encode import Encoded
from expunge.data.example import Example
from expunge.data.generator import named_generator
from expunge.forget._offset import code_offset, principal
from expunge.losses.refusals import draw_refusal, load_refusals
from expunge.models.base import LanguageModel
from expunge.models.config import ModelConfig
from expunge.models.load import wrap_model
from expunge.models.sample import Sample, Sampler
from expunge.train.job import Method, TrainingJob
from expunge.train.pairing import PairBatches
from expunge.train.unlearn import prepare, unlearn

STEPS, BATCH, PADDED = 12, 4, 40
OFFICIAL = [name for name in recipe_names() if name.endswith("_official")]


@dataclass
class Loop:
    """The model and rows of a plain loop."""

    model: LanguageModel
    original: torch.nn.Module
    forget: list[Encoded]
    retain: list[Encoded]
    examples: dict[str, list[Example]]
    samples: dict[int, list[list[Sample]]] = field(default_factory=dict)
    epoch: int = 0
    weighted: bool = False

    def refused(self, stream: str, index: int, forget: int) -> Encoded:
        """A row's question with the one refusal of a forget row."""
        text = draw_refusal(load_refusals(), "0/forget", 0, forget)
        return self.model.encoder.answered(self.examples[stream][index], text)


def logp(network: Any, rows: list[Encoded], *, scope: str = "answer") -> tuple[Tensor, Tensor, Tensor]:
    """(B, T, V) log-probabilities of the next token, (B, T) labels and (B, T) what counts, one row after another."""
    width = PADDED + 1 if scope == "padded" else max(len(row.ids) for row in rows)
    ids = torch.zeros(len(rows), width, dtype=torch.long)
    real, counts = torch.zeros_like(ids), torch.zeros_like(ids)
    for place, row in enumerate(rows):
        ids[place, : len(row.ids)] = torch.tensor(row.ids)
        real[place, : len(row.ids)] = 1
        counts[place, row.num_prompt - 1 : len(row.ids) - 1] = 1
        if scope == "padded":
            ids[place, len(row.ids) :] = network.config.eos_token_id
            counts[place] = 1
    logits = network(input_ids=ids, attention_mask=real).logits[:, :-1]
    return logits.log_softmax(-1), ids[:, 1:], counts[:, :-1].bool()


def answers(network: Any, rows: list[Encoded]) -> list[Tensor]:
    """The log-probabilities of each row's labels."""
    table, labels, counts = logp(network, rows)
    chosen = table.gather(2, labels[..., None])[..., 0]
    return [one[mask] for one, mask in zip(chosen, counts, strict=True)]


def sums(network: Any, rows: list[Encoded]) -> Tensor:
    return torch.stack([one.sum() for one in answers(network, rows)])


def nll(network: Any, rows: list[Encoded]) -> Tensor:
    """transformers' own loss: a mean over all labels."""
    return -torch.cat(answers(network, rows)).mean()


def max_entropy(loop: Loop, rows: list[Encoded]) -> Tensor:
    """KL(uniform || model) over all positions of padded rows but the last, which predicts nothing."""
    table = logp(loop.model.network, rows, scope="padded")[0][:, :-1]
    return (-math.log(table.shape[-1]) - table).mean()


def kl(loop: Loop, rows: list[Encoded]) -> Tensor:
    """KL(original || model) over every position of padded rows."""
    now, then = (logp(network, rows, scope="padded")[0] for network in (loop.model.network, loop.original))
    return (then.exp() * (then - now)).sum(-1).mean()


def belief_token(network: Any, rows: list[Encoded]) -> Tensor:
    """Cross-entropy ascent towards 0.8 of the label and 0.2 of the 20 likeliest tokens; a mean by row."""
    table, labels, counts = logp(network, rows)
    values = belief_values(table, labels)
    return torch.stack([one[mask].mean() for one, mask in zip(values, counts, strict=True)]).mean()


def belief_values(table: Tensor, labels: Tensor) -> Tensor:
    """(B, T) log-likelihood of the soft target at every position."""
    top, places = table.detach().topk(20)
    target = torch.zeros_like(table).scatter(2, places, 0.2 * top.softmax(-1))
    return ((target + 0.8 * F.one_hot(labels, table.shape[-1])) * table).sum(-1)


def states_of(network: Any, rows: list[Encoded]) -> list[Tensor]:
    """The outputs of block 0 at each row's answer tokens."""
    hidden = [network(input_ids=torch.tensor([row.ids]), output_hidden_states=True).hidden_states[1][0] for row in rows]
    return [one[row.num_prompt :] for one, row in zip(hidden, rows, strict=True)]


def crossed(found: list[Tensor], targets: list[Tensor]) -> Tensor:
    """OpenUnlearning's mean: a (B,) of sums over a (B, 1) of lengths."""
    total = torch.stack([(one - target).square().mean(-1).sum() for one, target in zip(found, targets, strict=True)])
    return (total / torch.tensor([len(one) for one in found])[:, None]).mean()


def ascent(network: Any, rows: list[Encoded]) -> Tensor:
    return torch.stack([one.mean() for one in answers(network, rows)]).mean()


def sequences(loop: Loop, indices: list[int], base: Callable[[Any, list[Encoded]], Tensor]) -> Tensor:
    """Half on the stored answers, half on what the model said at the start of the epoch."""
    own = [base(loop.model.network, [one.encoded for one in loop.samples[loop.epoch][index]]) for index in indices]
    return 0.5 * base(loop.model.network, [loop.forget[index] for index in indices]) + 0.5 * torch.stack(own).mean()


def forget_loss(name: str, loop: Loop, indices: list[int]) -> Tensor:
    network, rows = loop.model.network, [loop.forget[index] for index in indices]
    refused = [loop.refused("forget", index, index) for index in indices]
    match name:
        case "gradient_ascent":
            return -nll(network, rows)
        case "npo":
            with torch.no_grad():
                before = sums(loop.original, rows)
            return -2 / 0.1 * F.logsigmoid(-0.1 * (sums(network, rows) - before)).mean()
        case "simnpo":
            means = torch.stack([one.mean() for one in answers(network, rows)])
            return -2 / 4.5 * F.logsigmoid(-4.5 * means).mean()
        case "weighted_ascent":
            values = torch.cat(answers(network, rows))
            return (values.detach().exp() * values).mean()
        case "refusal":
            return nll(network, refused)
        case "dpo":
            with torch.no_grad():
                start = sums(loop.original, refused) - sums(loop.original, rows)
            return -2 / 0.1 * F.logsigmoid(0.1 * (sums(network, refused) - sums(network, rows) - start)).mean()
        case "max_entropy":
            return max_entropy(loop, rows)
        case "belief_token" if loop.weighted:
            table, labels, counts = logp(network, rows)
            with torch.no_grad():
                weights = 2 * torch.sigmoid(sums(network, rows) - sums(loop.original, rows))
            values = belief_values(table, labels)
            return (weights * torch.stack([one[mask].sum() for one, mask in zip(values, counts, strict=True)])).mean()
        case "belief_token":
            return belief_token(network, rows)
        case "misdirection":
            direction = torch.rand(24, generator=named_generator("0/direction/"))
            return crossed(states_of(network, rows), [2.0 * direction / direction.norm()] * len(rows))
    raise AssertionError(name)


def retain_loss(name: str, loop: Loop, indices: list[int], partners: list[int]) -> Tensor:
    network, rows = loop.model.network, [loop.retain[index] for index in indices]
    match name:
        case "nll":
            return nll(network, rows)
        case "kl":
            return kl(loop, rows)
        case "hidden_mse":
            with torch.no_grad():
                before = states_of(loop.original, rows)
            return crossed(states_of(network, rows), before)
        case "answer_preservation":
            refused = [loop.refused("retain", index, partner) for index, partner in zip(indices, partners, strict=True)]
            return -F.logsigmoid(0.1 * (sums(network, rows) - sums(network, refused))).mean() / 0.1
    raise AssertionError(name)


@pytest.fixture
def small(tokenizer: PreTrainedTokenizerFast) -> Callable[..., LanguageModel]:
    """A random Llama of some blocks, always the same."""

    def build(num_blocks: int = 2) -> LanguageModel:
        sizes = {"hidden_size": 24, "intermediate_size": 32, "num_hidden_layers": num_blocks}
        network = tiny_llama(tokenizer, pad_token_id=None, initializer_range=0.1, **sizes)
        return wrap_model(network, tokenizer, ModelConfig(name="small", precision="float32"))

    return build


def distances(found: LanguageModel, expected: LanguageModel, start: LanguageModel) -> tuple[float, float]:
    """How far two models are from each other, and the second from its start, as shares of the norm of its weights."""
    first, second, third = (
        torch.cat([weight.detach().flatten() for weight in model.network.parameters()])
        for model in (found, expected, start)
    )
    return float((first - second).norm() / second.norm()), float((second - third).norm() / second.norm())


@pytest.mark.parametrize("name", OFFICIAL)
def test_official_recipes_are_the_published_loop(
    name: str,
    small: Callable[..., LanguageModel],
    examples: dict[str, tuple[Example, ...]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """12 steps of 4 rows: AdamW with linear decay after one epoch of warm-up, as each paper's code has it."""
    drawn: dict[int, list[list[Sample]]] = {}
    draw = Sampler.draw

    def noting(self: Sampler, indices: Any, seeds: Any) -> list[list[Sample]]:
        drawn[len(drawn)] = found = draw(self, indices, seeds)
        return found

    monkeypatch.setattr(Sampler, "draw", noting)
    smaller = [
        "train.epochs=6",
        f"train.batch_size={BATCH}",
        "train.lr=1e-3",
        "train.checkpoints=false",
        "guard.every=100",
    ]
    tables = {"recipe": name, "model": {"name": "smollm2-135m"}, "data": {"forget": "f", "retain": "r"}}
    run = load_run(None, tables, [*smaller, "guard.every=100"])
    for slot in ("forget", "retain"):
        options = getattr(run, slot).options
        options.update({"padded_length": PADDED} if "scope" in options else {})
        options.update({"max_new_tokens": 6} if "longest" in options else {})
        options.update({"layer": 0} if "layer" in options else {})
    rows = {split: list(examples[split][:8]) for split in ("forget", "retain")}
    ours = small()
    ours.freeze_but([weight for weight, _ in ours.network.named_parameters()])
    fillers = [run.build(slot) for slot in ("forget", "retain", "combine")]
    job = TrainingJob(ours, run.train, run.guard, 0, tmp_path)
    prepared = prepare(job, Method(*fillers), rows["forget"], rows["retain"])  # type: ignore[arg-type]
    assert unlearn(job, prepared).num_steps == STEPS

    plain = small()
    encoded = [[plain.encoder.example(row) for row in rows[split]] for split in ("forget", "retain")]
    loop = Loop(plain, small().network.eval(), *encoded, rows, drawn)  # type: ignore[arg-type]
    loop.weighted = name == "bs_t_npo_official"
    groups = [  # transformers' trainer, which the published code runs in, decays no norms
        {"params": [one for one in plain.network.parameters() if (one.dim() > 1) is decayed], "weight_decay": decay}
        for decayed, decay in ((True, 0.01), (False, 0.0))
    ]
    optimizer = torch.optim.AdamW(groups, lr=1e-3, betas=(0.9, 0.999), eps=1e-8)
    belief = "bs_s" in name
    clip = 0.0 if name.split("_")[0] in ("ga", "me", "idk", "dpo") or name == "npo_kl_official" else 1.0
    weights = {"simnpo_official": 0.125, "me_gd_official": 0.1, "me_kl_official": 0.1}
    batches = PairBatches(8, 8, BATCH, 1, seed=0)
    for step in range(STEPS):
        loop.epoch, place = divmod(step, 2)
        batches.set_epoch(loop.epoch)
        pairs = list(batches)[place]
        forget, retain = [row for row, _ in pairs], [row for _, others in pairs for row in others]
        if belief:
            push = sequences(loop, forget, ascent if name == "bs_s_ga_official" else belief_token)
        else:
            push = forget_loss(run.forget.name, loop, forget)
        hold = torch.zeros(()) if name == "ga_official" else retain_loss(run.retain.name, loop, retain, forget)
        (weights.get(name, 1.0) * push + hold).backward()
        if clip:
            torch.nn.utils.clip_grad_norm_(plain.network.parameters(), clip)
        for group in optimizer.param_groups:
            group["lr"] = 1e-3 * (step / 2 if step < 2 else (STEPS - step) / (STEPS - 2))
        optimizer.step()
        optimizer.zero_grad()
    apart, moved = distances(ours, plain, small())
    assert moved > 0.01
    assert apart < 1e-6


@dataclass
class HFAdamW:
    """AdamW of transformers 4 without decay: epsilon before the bias correction."""

    parameters: list[torch.nn.Parameter]
    mean: list[Tensor] = field(default_factory=list)
    square: list[Tensor] = field(default_factory=list)
    steps: int = 0

    def step(self, gradients: list[Tensor]) -> None:
        self.mean = self.mean or [torch.zeros_like(one) for one in gradients]
        self.square = self.square or [torch.zeros_like(one) for one in gradients]
        self.steps += 1
        for place, (weight, gradient) in enumerate(zip(self.parameters, gradients, strict=True)):
            self.mean[place] = 0.9 * self.mean[place] + 0.1 * gradient
            self.square[place] = 0.999 * self.square[place] + 0.001 * gradient**2
            rate = 5e-5 * math.sqrt(1 - 0.999**self.steps) / (1 - 0.9**self.steps)
            weight.data -= rate * self.mean[place] / (self.square[place].sqrt() + 1e-6)


class SophiaG(HFAdamW):
    """The library's: each gradient enters the momentum twice, and curvature is a mean of squared gradients."""

    def step(self, gradients: list[Tensor]) -> None:
        self.mean = self.mean or [torch.zeros_like(one) for one in gradients]
        self.square = self.square or [torch.zeros_like(one) for one in gradients]
        for place, (weight, gradient) in enumerate(zip(self.parameters, gradients, strict=True)):
            self.mean[place] = 0.965**2 * self.mean[place] + (1 - 0.965**2) * gradient
            self.square[place] = 0.99 * self.square[place] + 0.01 * gradient**2
            ratio = (self.mean[place].abs() / (0.9 * 5120 * self.square[place] + 1e-15)).clamp(max=1)
            weight.data = weight.data * (1 - 5e-5 * 1e-3) - 5e-5 * self.mean[place].sign() * ratio


def states(network: Any, rows: list[Encoded]) -> Tensor:
    """(M, D) outputs of block 7 at every token of equally long rows."""
    found: list[Tensor] = []
    handle = network.model.layers[7].register_forward_hook(
        lambda module, inputs, output: found.append(output[0] if isinstance(output, tuple) else output)
    )
    network(input_ids=torch.tensor([row.ids for row in rows]))
    handle.remove()
    return found[0].flatten(0, 1)


@pytest.mark.parametrize("name", ["rmu_zephyr", "adaptive_rmu_zephyr", "falcon_zephyr"])
def test_zephyr_recipes_are_the_published_loop(
    name: str,
    small: Callable[..., LanguageModel],
    examples: dict[str, tuple[Example, ...]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """12 steps of 4 texts, cut off at 8 and 12 tokens, of two corpora in turn, in the order of the files.

    FALCON's first retain gradient is rounding noise, by whose sign its rule decides: the loop takes that step's sum.
    """
    texts = [row.answer or "" for split in ("forget", "retain") for row in examples[split]]
    assert len(texts) >= 12

    def corpus(topic: str | None, count: int, shift: int) -> list[Example]:
        words = [" ".join((texts * 3)[place + shift : place + shift + 3]) for place in range(count)]
        return [Example(f"{topic}{place}", text=text, topic=topic) for place, text in enumerate(words)]

    data = {"forget": "f", "retain": "r", "max_tokens": {"biology": 8, "cyber": 12, "other": 10}}
    run = load_run(
        None,
        {"recipe": name, "model": {"name": "smollm2-135m"}, "data": data},
        ["train.steps=12", "train.checkpoints=false", "guard.every=100"],
    )
    ours, plain, original = small(8), small(8), small(8).network.eval()
    named = [f"model.layers.{layer}.mlp.down_proj.weight" for layer in (5, 6, 7)]
    assert tuple(run.build("localize").select(ours, None, 0).names) == tuple(named)
    ours.freeze_but(named)
    forget = run.data.documents.rows(ours.encoder, [*corpus("biology", 24, 0), *corpus("cyber", 24, 1)])
    retain = run.data.documents.rows(ours.encoder, corpus(None, 24, 2))
    sums: list[list[Tensor]] = []
    combined = Orthogonal._combined

    def noting(self: Orthogonal) -> Any:
        found: Any = combined(self)
        sums.append([one.clone() for one in found])
        return found

    monkeypatch.setattr(Orthogonal, "_combined", noting)
    fillers = [run.build(slot) for slot in ("forget", "retain", "combine")]
    job = TrainingJob(ours, run.train, run.guard, 0, tmp_path)
    assert unlearn(job, prepare(job, Method(*fillers), forget, retain)).num_steps == STEPS

    encoded = [plain.encoder.example(row) for row in forget]
    kept = [plain.encoder.example(row) for row in retain]
    assert {len(row.ids) for row in encoded[:24]} == {8}
    assert {len(row.ids) for row in encoded[24:]} == {12}
    parameters = [dict(plain.network.named_parameters())[one] for one in named]
    optimizer = (SophiaG if name == "falcon_zephyr" else HFAdamW)(parameters)
    network, width = plain.network, 24
    for step in range(STEPS):
        topic, place = step % 2, step // 2
        start = 24 * topic + BATCH * place
        batch, others = encoded[start : start + BATCH], kept[BATCH * place : BATCH * (place + 1)]
        with torch.no_grad():
            before, held = states(original, batch), states(original, others)
            first = states(original, encoded[24 * topic : 24 * topic + BATCH])
        now, hold = states(network, batch), states(network, others)
        if name == "falcon_zephyr":
            noise = torch.randn(width, width, generator=named_generator("0/pov/"))
            towards = F.cosine_similarity(now, code_offset(principal(before), noise)[None], dim=-1) / 0.7
            away = F.cosine_similarity(now, before, dim=-1) / 0.7
            push = -torch.stack([towards, away]).log_softmax(0)[0].mean()
            gradients = torch.autograd.grad(push, parameters)
            kept_gradients = torch.autograd.grad(100 * (1 - F.cosine_similarity(hold, held, dim=-1).mean()), parameters)
            step_gradients = []
            for one, other in zip(gradients, kept_gradients, strict=True):
                dot = (one * other).sum()
                apart = one - dot / other.square().sum() * other
                step_gradients.append(0.8 * apart + 1.2 * other if dot < 0 else 0.1 * one + 1.9 * other)
            optimizer.step(step_gradients if step else sums[0])
            continue
        direction = torch.rand(width, generator=named_generator(f"0/direction/{('biology', 'cyber')[topic]}"))
        length = 6.5 if name == "rmu_zephyr" else 5 * float(first.norm(dim=-1).mean())
        push = F.mse_loss(now, (length * direction / direction.norm()).expand_as(now))
        loss = push + 1200 * F.mse_loss(hold, held)
        optimizer.step(list(torch.autograd.grad(loss, parameters)))
    apart, moved = distances(ours, plain, small(8))
    assert moved > 1e-4
    assert apart < 1e-3 * moved
