"""Continuations of encoded prompts: scored answers, greedy answers and samples."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from expunge.data.batch import to_device
from expunge.data.reasoning import Watch
from expunge.models.prefix import Prefix
from expunge.numerics.token import prediction, token_logp


@dataclass(frozen=True)
class Scored:
    """A teacher-forced answer."""

    logp: tuple[float, ...]
    """Log-probability of each label."""
    hit: tuple[bool, ...]
    """Whether each label was the model's first choice."""
    mean: tuple[float, ...] = ()
    """Expected log-probability of a token drawn from the model at each label, if the moments were requested."""
    variance: tuple[float, ...] = ()
    """Variance of the same."""
    top_logit: tuple[float, ...] = ()
    """Largest logit at each label, if the moments were requested."""
    top_logp: tuple[float, ...] = ()
    """Log-probability of that token."""


@dataclass
class ReadAnswers:
    """Teacher-forced answers: their scores, and where greedy decoding would have left them."""

    scored: list[Scored]
    num_agreed: list[int]
    """Leading tokens of each answer that greedy decoding would give too, at most all but the last."""
    behind: Prefix
    """Each prompt with its answer behind it, less the answer's last token."""
    hidden: Tensor
    """(A, S - 1, D) final hidden states of those tokens, for answers of S tokens at most."""

    def turned(self, rows: Sequence[int]) -> Prefix:
        """Some of the prompts, each with the agreed start of its answer behind it: decoding goes on from there.

        The rest of the answer stays in the cache, where nothing attends to it; this needs blocks that attend to all
        positions (`CachePolicy.holes`).
        """
        kept = torch.tensor(rows, device=self.hidden.device)
        turn = self.behind.select(kept)
        agreed = torch.tensor([self.num_agreed[row] for row in rows], device=kept.device)
        if self.hidden.shape[1]:
            steps = self.hidden.shape[1]
            turn.mask[:, -steps:] *= torch.arange(steps, device=kept.device) < agreed[:, None]
            went = agreed.nonzero()[:, 0]
            if len(went):
                with turn.model.autocast():
                    turn.logits[went] = turn.model.head(self.hidden[kept[went], agreed[went] - 1]).float()
        return turn


_POSITIONS = 128
"""Positions whose logits are computed together: few enough to stay in a processor's cache."""


@torch.no_grad()
def read_answers(
    prefix: Prefix, rows: Sequence[int], answers: Sequence[Sequence[int]], *, moments: bool | Sequence[bool] = False
) -> ReadAnswers:
    """Teacher-forced answers, each after its prompt.

    Args:
        prefix: P encoded prompts.
        rows: for each of A answers, its prompt's row.
        answers: label ids, none empty.
        moments: also compute the moments and the top token at each label (see `Scored`), for all answers or for those
            marked here.
    """
    model = prefix.model
    marked = [moments] * len(answers) if isinstance(moments, bool) else list(moments)
    lengths = torch.tensor([len(answer) for answer in answers], device=model.device)
    ids = torch.nn.utils.rnn.pad_sequence([torch.tensor(answer) for answer in answers], batch_first=True)
    ids = ids.to(model.device)
    real = torch.arange(ids.shape[1], device=model.device) < lengths[:, None]
    first = prefix.first_logits
    own = torch.tensor(rows, device=model.device)
    behind = prefix.select(own)
    found = torch.zeros(6, *ids.shape, device=model.device)
    hidden = behind.logits.new_zeros(len(answers), 0, 0)
    if ids.shape[1] > 1:
        hidden = behind.extend(ids[:, :-1], real[:, 1:].long())
    for wanted in set(marked):
        like = torch.tensor([mark == wanted for mark in marked], device=model.device)
        for row in torch.split(like.nonzero()[:, 0], _POSITIONS):
            _record(found, first[own[row]], ids, row, torch.zeros_like(row), wanted)
        later = (real & like[:, None])[:, 1:].nonzero()
        for part in torch.split(later, _POSITIONS) if len(later) else ():
            row, place = part.unbind(1)
            with model.autocast():
                logits = model.head(hidden[row, place]).float()
            _record(found, logits, ids, row, place + 1, wanted)
    found = found.cpu()
    hits = found[1].bool()
    agreed = hits.long().cumprod(1).sum(1).minimum(lengths.cpu() - 1)
    scored = [
        Scored(
            tuple(found[0, row, :length].tolist()),
            tuple(hits[row, :length].tolist()),
            *(tuple(found[place, row, :length].tolist()) for place in range(2, 6) if marked[row]),
        )
        for row, length in enumerate(lengths.tolist())
    ]
    return ReadAnswers(scored, agreed.tolist(), behind, hidden)


def _record(found: Tensor, logits: Tensor, ids: Tensor, rows: Tensor, places: Tensor, moments: bool) -> None:
    """Write the values of (N, V) logits at the labels `ids[rows, places]` into `found` (6, A, S).

    Log-probability of the label, and whether it is the first choice; with the moments also mean and variance of the
    log-probability, the largest logit and the log-probability of that token.
    """
    labels = ids[rows, places]
    found[0, rows, places] = token_logp(logits, labels)
    found[1, rows, places] = (logits.argmax(-1) == labels).float()
    if moments:
        found_here = prediction(logits)
        found[2:, rows, places] = torch.stack([*found_here[:3], found_here.top_logp])


def score_answers(
    prefix: Prefix, rows: Sequence[int], answers: Sequence[Sequence[int]], *, moments: bool = False
) -> list[Scored]:
    """What `read_answers` finds of each answer."""
    return read_answers(prefix, rows, answers, moments=moments).scored


@torch.no_grad()
def next_logp(prefix: Prefix, rows: Sequence[int], tokens: Sequence[int]) -> list[float]:
    """Log-probability of single tokens right after their prompts: no copy of any cache, and few models read anything.

    Args:
        prefix: P encoded prompts.
        rows: for each token, its prompt's row.
        tokens: ids.
    """
    logits = prefix.first_logits
    row, token = (torch.tensor(values, dtype=torch.long, device=logits.device) for values in (rows, tokens))
    logp: list[float] = (logits[row, token] - logits.logsumexp(-1)[row]).tolist()
    return logp


@torch.no_grad()
def decode(
    prefix: Prefix,
    max_new_tokens: int | Sequence[int],
    stop_ids: frozenset[int],
    seeds: Sequence[str] | None = None,
    temperature: float = 1.0,
    *,
    top_k: int = 0,
    top_p: float = 1.0,
    keep_stop: bool = False,
    watches: Sequence[Watch | None] | None = None,
) -> list[list[int]]:
    """Continue every prompt until a stop token; rows that have ended leave the batch. Consumes the prefix.

    Args:
        prefix: P encoded prompts.
        max_new_tokens: at most this many tokens a row; one number, or a positive one for each row. Rows end, too, where
            a table of learned positions does.
        stop_ids: tokens that end a row.
        seeds: one string a row to sample with; None decodes greedily. A row's sample depends on its own seed only,
            never on what else is in the batch.
        temperature: of the sampling.
        top_k: sample from the k likeliest tokens only; 0: from all.
        top_p: sample from the likeliest tokens that together reach this probability; 1: from all.
        keep_stop: whether the stop token is part of the result.
        watches: for each row, decides after every token whether to go on. Default: until a stop token.

    Returns:
        New token ids of each row.
    """
    outputs: list[list[int]] = [[] for _ in range(prefix.mask.shape[0])]
    limits = [max_new_tokens] * len(outputs) if isinstance(max_new_tokens, int) else max_new_tokens
    if (room := prefix.room()) is not None:
        limits = [min(limit, left) for limit, left in zip(limits, room, strict=True)]
    if max(limits) < 1:
        return outputs
    alive = list(range(len(outputs)))
    draws = None
    if seeds is not None:
        uniforms = [_uniform(seed, limit) for seed, limit in zip(seeds, limits, strict=True)]
        draws = to_device(torch.nn.utils.rnn.pad_sequence(uniforms, batch_first=True), prefix.mask.device)
    for step in range(max(limits)):
        uniform = None if draws is None else draws[:, step]
        chosen = _choose(prefix.logits, uniform, temperature, top_k, top_p)
        tokens = chosen.tolist()  # all that the host waits for
        going = []
        for row, token in enumerate(tokens):
            place, stopped = alive[row], token in stop_ids
            watch = None if watches is None else watches[place]
            goes_on = not stopped if watch is None else watch.stays(token, stopped)
            if keep_stop or not stopped or goes_on:
                outputs[place].append(token)
            if goes_on and step + 1 < limits[place]:
                going.append(row)
        alive = [alive[row] for row in going]
        if not alive:
            break
        if len(going) < len(tokens):
            keep = to_device(torch.tensor(going), prefix.mask.device)
            prefix.keep(keep)
            chosen, draws = chosen[keep], draws if draws is None else draws[keep]
        prefix.step(chosen)
    return outputs


def _choose(logits: Tensor, uniform: Tensor | None, temperature: float, top_k: int, top_p: float) -> Tensor:
    """(R,) arg-max of each row, or the token at which the cumulative probability passes `uniform`."""
    if uniform is None:
        return logits.argmax(-1)
    if top_k or top_p < 1:
        return _choose_top(logits, uniform, temperature, top_k, top_p)
    cumulative = torch.softmax(logits if temperature == 1 else logits / temperature, dim=-1).cumsum(-1)
    threshold = uniform.to(logits)[:, None] * cumulative[:, -1:]
    return torch.searchsorted(cumulative, threshold, right=True).clamp(max=logits.shape[-1] - 1)[:, 0]


def _choose_top(logits: Tensor, uniform: Tensor, temperature: float, top_k: int, top_p: float) -> Tensor:
    """The same among the likeliest tokens, in descending order; the token that reaches `top_p` is among them."""
    size = logits.shape[-1]
    values, tokens = logits.topk(min(top_k or size, size), dim=-1)
    probabilities = torch.softmax(values / temperature, dim=-1)
    before = probabilities.cumsum(-1) - probabilities
    kept = before < (top_p if top_p < 1 else math.inf)
    cumulative = (probabilities * kept).cumsum(-1)
    places = torch.searchsorted(cumulative, uniform.to(logits)[:, None] * cumulative[:, -1:], right=True)
    last = kept.sum(-1, keepdim=True) - 1
    return tokens.gather(1, places.minimum(last))[:, 0]


def _uniform(seed: str, count: int) -> Tensor:
    """`count` float32 numbers in [0, 1] that depend on the seed string alone; drawn as float64."""
    number = int.from_bytes(hashlib.sha256(seed.encode()).digest()[:8], "big") >> 1
    return torch.rand(count, generator=torch.Generator().manual_seed(number), dtype=torch.float64).float()
