"""Choose how a model's answers are computed: the fastest use of a cache that does not change them on a few tokens.

Whether a cache changes scores cannot be inferred from a model's name: windows and attention biases may count positions
instead of tokens, recurrent states may change with padding or not be kept, and positions may be ignored.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor
from transformers.cache_utils import (
    DynamicIndexedLayer,
    DynamicSlidingWindowLayer,
    LinearAttentionAndFullAttentionLayer,
    LinearAttentionAndSlidingWindowAttentionLayer,
    LinearAttentionLayer,
)

from expunge.core.errors import UserError
from expunge.models.base import LanguageModel
from expunge.models.cache import CachePolicy, RoomyLayer, roomy_cache
from expunge.models.prefix import CachedPast, Prefix, encode_prompts, plain_hidden

_SHARED, _LENGTHS = 3, (5, 8)
"""Tokens that the two prompts begin with alike, and their lengths."""
_ANSWERS = (2, 3)
"""Tokens of their answers."""
_FINE = 5e-5
"""Largest error in float32: rounding stays well below, and the smallest fault of a model of random weights above."""
_LARGEST = 0.2
"""No arithmetic rounds as coarsely as this."""
_TF32 = 2.0**-10
_STEPS = 3
"""Tokens that are read one by one after a prompt."""
_GAP = 1024
"""Places of padding between prompt and answer: windows up to this are found out, wherever they are written. Longer ones
are known from the cache's layers."""
_PER_TOKEN = (
    RoomyLayer,
    DynamicSlidingWindowLayer,
    DynamicIndexedLayer,
)
_STATES = (
    LinearAttentionLayer,
    LinearAttentionAndFullAttentionLayer,
    LinearAttentionAndSlidingWindowAttentionLayer,
)
"""Cache layers that hold something for each token, and those that also hold one state for all. Others may sum up blocks
of more tokens than are tried here."""


class _Ruler:
    """How hidden states are compared.

    Args:
        model: whose arithmetic says how close they must be.
    """

    def __init__(self, model: LanguageModel) -> None:
        with model.autocast():
            kind = model.device.type
            used = {torch.get_autocast_dtype(kind)} if torch.is_autocast_enabled(kind) else set()
        used |= {weight.dtype for weight in model.base.parameters() if weight.dtype in (torch.float16, torch.bfloat16)}
        spacing = max(torch.finfo(dtype).eps for dtype in {torch.float32, *used})
        if kind == "cuda" and torch.get_float32_matmul_precision() != "highest":
            spacing = max(spacing, _TF32)
        self._is_coarse = spacing > _FINE
        self.tolerance = max(_FINE, 16 * spacing)
        self.refused = min(10 * self.tolerance, _LARGEST)

    def error(self, found: Tensor, truth: Tensor, real: Tensor | None = None) -> Tensor:
        """Largest distance of vectors in parts of their length: (P, S, D), or (P, D) -> ().

        Args:
            found: P rows.
            truth: the same by plain passes.
            real: (P, S) which of them mean anything.
        """
        errors: Tensor = (found.float() - truth.float()).norm(dim=-1) / truth.float().norm(dim=-1).clamp(min=1e-30)
        if real is not None and self._is_coarse:
            # rounding alone may send a single token to other experts
            return errors.where(real, torch.nan).nanmedian(1).values.max()
        return errors.max() if real is None else errors[real].max()


@torch.no_grad()
def choose_caching(model: LanguageModel) -> CachePolicy:
    """The fastest way to compute answers that gives what plain passes give.

    Raises:
        UserError: even passes without a cache give something else for a row in a batch than for the row alone, or will
            for longer rows.
    """
    _check_positions(model)
    reason = ""
    with model.evaluating():
        ids = _tokens(model)
        ruler = _Ruler(model)
        truth = _checked_plain(model, ids, ruler)
        for caching in _ways(model):
            model.caching = caching
            try:
                errors = [float(error) for error in _errors(model, ids, truth, ruler)]
            except (MemoryError, torch.OutOfMemoryError):
                raise
            except Exception as failure:  # models raise anything at a cache or a padding that they cannot handle
                reason = f"{type(failure).__name__}: {str(failure).splitlines()[0] if str(failure) else ''}"
                continue
            if all(error <= ruler.tolerance for error in errors):
                return caching
            reason = f"it changes hidden states by {max(errors):.2g} of their size"
    return CachePolicy(False, True, reason=reason or "it holds something else than keys and values of each token")


def _check_positions(model: LanguageModel) -> None:
    """Refuse lengths from which on a row changes the positions of all rows that are read with it (LongRoPE)."""
    rope = getattr(model.base.config.get_text_config(), "rope_parameters", None) or {}
    kinds = [rope, *(kind for kind in rope.values() if isinstance(kind, dict))]
    ends = [kind.get("original_max_position_embeddings") for kind in kinds if kind.get("rope_type") == "longrope"]
    end = min((end for end in ends if end), default=model.encoder.max_length)
    if end < model.encoder.max_length:
        raise UserError(
            f"model.max_length: rows of more than {end} tokens change how {type(model.base).__name__} rotates all rows "
            f"that are read with them (LongRoPE); set model.max_length = {end}"
        )


def _ways(model: LanguageModel) -> list[CachePolicy]:
    longest = 2 * model.encoder.max_length  # the longest prompt beside the longest answer of another row
    try:
        layers = roomy_cache(model.base.config, longest).layers
    except Exception:  # a configuration that transformers makes no cache of
        return []
    kinds = {type(layer) for layer in layers}
    if not kinds <= {*_PER_TOKEN, *_STATES}:
        return []
    if kinds & set(_STATES):
        return [CachePolicy(True, False, steps_only=True, longest=longest)]
    alike = [CachePolicy(True, True, longest=longest)] if kinds == {RoomyLayer} else []
    return [*alike, CachePolicy(True, False, longest=longest)]


def _tokens(model: LanguageModel) -> Tensor:
    """(2, T) tokens that begin alike."""
    rows = model.probe_ids(max(_LENGTHS) + max(_ANSWERS) + 1, 2)
    rows[1, :_SHARED] = rows[0, :_SHARED]
    return rows


def _checked_plain(model: LanguageModel, ids: Tensor, ruler: _Ruler) -> Tensor:
    """(2, T, D) final hidden states of plain passes over whole rows; shorter rows with padding are checked first."""
    truth = plain_hidden(model, ids)
    lengths = torch.tensor(_LENGTHS, device=ids.device)
    width = max(_LENGTHS)
    real = torch.arange(width, device=ids.device) < lengths[:, None]
    found = plain_hidden(model, ids[:, :width] * real, real.long())
    error = float(ruler.error(found, truth[:, :width], real))
    if not error <= ruler.refused:
        alone = plain_hidden(model, ids[:1, : _LENGTHS[0]])
        causal = float(ruler.error(alone[0], truth[0, : _LENGTHS[0]])) <= ruler.refused
        why = "padding after a row changes" if causal else "later tokens change"
        raise UserError(
            f"model.name: cannot score with '{model.source}': {why} what {type(model.base).__name__} computes for the "
            f"tokens before (hidden states by {error:.2g} of their size), so it is no causal language model"
        )
    return truth


def _errors(model: LanguageModel, ids: Tensor, truth: Tensor, ruler: _Ruler) -> Iterator[Tensor]:
    """How far the model is from plain passes after two prompts, at answers to them, and at tokens one by one.

    Where padding may lie between tokens, a long gap of it separates the answers from the prompts.
    """
    prompts = [row[:length].tolist() for row, length in zip(ids, _LENGTHS, strict=True)]
    prefix = encode_prompts(model, prompts)
    rows = torch.arange(2, device=ids.device)
    at = torch.tensor(_LENGTHS, device=ids.device)
    yield _error_after(ruler, prefix, truth[rows, at - 1])
    order = torch.tensor([1, 0, 1], device=ids.device)  # samples repeat rows
    branch = prefix.select(order)
    if model.caching.holes:
        _open_gap(branch, min(model.caching.longest, _GAP))
    lengths = torch.tensor(_ANSWERS, device=ids.device)
    steps = torch.arange(max(_ANSWERS), device=ids.device)
    real = (steps < lengths[:, None])[order]
    tokens, states = (values[rows[:, None], at[:, None] + steps][order] for values in (ids, truth))
    yield ruler.error(branch.extend(tokens * real, real.long()), states, real)
    prefix, at = prefix.select(order), at[order]
    for _ in range(1 if model.caching.holes else _STEPS):
        prefix.step(ids[order, at])
        yield _error_after(ruler, prefix, truth[order, at])
        at = at + 1


def _error_after(ruler: _Ruler, prefix: Prefix, states: Tensor) -> Tensor:
    """The same of the logits after what was read, (P, D) final hidden states of plain passes given."""
    with prefix.model.autocast():
        logits = prefix.model.head(states).float()
    return ruler.error(prefix.logits - prefix.logits.mean(-1, keepdim=True), logits - logits.mean(-1, keepdim=True))


def _open_gap(prefix: Prefix, places: int) -> None:
    """Append padding to the cache: keys and values that nothing may attend to, without computing them."""
    assert isinstance(prefix.past, CachedPast)
    for layer in prefix.past.cache.layers:
        if isinstance(layer, RoomyLayer) and layer.keys is not None and layer.values is not None:
            nothing = [kept.new_zeros(*kept.shape[:-2], places, kept.shape[-1]) for kept in (layer.keys, layer.values)]
            layer.update(nothing[0], nothing[1])
    prefix.mask = torch.nn.functional.pad(prefix.mask, (0, places))
