"""A causal language model of any architecture; its decoder, blocks and head are found by observing a forward pass."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from expunge.core.errors import UserError
from expunge.data.encode import Encoder
from expunge.models.batches import Budget, free_memory
from expunge.models.cache import CachePolicy
from expunge.models.fingerprint import Fingerprint
from expunge.models.hooks import replaced_forward
from expunge.models.layout import NetworkLayout, find_layout, replaced_module
from expunge.models.merging import merge, merged_names, plain_network
from expunge.models.precision import MASTER
from expunge.models.source import ModelOrigin
from expunge.models.tensor_store import StateMemory

_COPIES = 0.5
"""Largest share of the free memory for copies of weights in the compute dtype."""
_ROUNDING = 1e-4
"""Largest difference between two computations of the same logits, relative to the largest logit, in float32."""


class LanguageModel:
    """A causal language model with its tokenizer.

    Args:
        network: a transformers causal LM, or a peft model around one.
        tokenizer: its tokenizer.
        encoder: turns questions and answers into token ids.
        precision: compute dtype, i.e. that of matrix products: `float32`, or `bfloat16` or `float16` under autocast.
        source: the name, path or hub id that the user gave.
        stored_dtype: dtype of the weights in the files they were loaded from, and in those they are saved to.
        stored_otherwise: name in the plain network -> dtype, for parameters that are stored in another dtype.
        origin: the files that the network was loaded from.

    Raises:
        UserError: the network's parts cannot be found, or its logits cannot be computed from final hidden states.
    """

    def __init__(
        self,
        network: Any,
        tokenizer: PreTrainedTokenizerBase,
        encoder: Encoder,
        precision: str = "float32",
        source: str = "a loaded model",
        stored_dtype: torch.dtype = torch.float32,
        stored_otherwise: Mapping[str, torch.dtype] | None = None,
        origin: ModelOrigin | None = None,
    ) -> None:
        self.network = network
        self.tokenizer = tokenizer
        self.encoder = encoder
        self.precision = precision
        self.source = source
        self.stored_dtype = stored_dtype
        self.stored_otherwise = dict(stored_otherwise or {})
        self.origin = origin or ModelOrigin()
        self.unsettled: set[str] = set()
        """Names of weights that a merged adapter changed; `settle` rounds them with the trained ones."""
        self._fingerprint = Fingerprint()
        self.widened: dict[str, torch.dtype] = {}
        """Name -> dtype of the trained parameters before they were widened to float32."""
        self.caching = CachePolicy(keeps=False, holes=True)
        """How answers are computed; chosen by a self-check when the model is loaded."""
        self.state_memory = StateMemory()
        self.budget = Budget(self.base.config)
        self.layout = self._find_layout()

    @property
    def is_adapted(self) -> bool:
        """Whether the network is a peft model around a transformers model."""
        return hasattr(self.network, "get_base_model")

    @property
    def base(self) -> PreTrainedModel:
        """The transformers model, inside its adapter if it has one."""
        inner = plain_network(self.network)
        assert isinstance(inner, PreTrainedModel)
        return inner

    @property
    def decoder(self) -> nn.Module:
        """The module that maps token ids to final hidden states."""
        return self.base.get_submodule(self.layout.decoder)

    @property
    def output_matrix(self) -> nn.Module:
        """The linear layer from final hidden states to logits."""
        base: Any = self.base
        head: nn.Module = base.get_output_embeddings()
        return head

    @property
    def device(self) -> torch.device:
        """The device of the weights."""
        device: torch.device = next(self.network.parameters()).device
        return device

    @property
    def compute(self) -> torch.dtype:
        """The dtype of matrix products."""
        found = getattr(torch, self.precision)
        assert isinstance(found, torch.dtype)
        return found

    @property
    def machine(self) -> tuple[str, str, str]:
        """For records: the device, the precision of matrix products, and the use of a key/value cache."""
        return str(self.device), self.precision, self.caching.summary

    def autocast(self) -> contextlib.AbstractContextManager[Any]:
        """The context of every forward pass: autocast to the compute dtype, or none in float32."""
        if self.compute == torch.float32:
            return torch.autocast(self.device.type, enabled=False)
        return torch.autocast(self.device.type, dtype=self.compute)

    @contextlib.contextmanager
    def evaluating(self) -> Iterator[None]:
        """Put the network in evaluation mode within this block; the previous mode is restored."""
        was_training = self.network.training
        self.network.eval()
        try:
            yield
        finally:
            self.network.train(was_training)

    @contextlib.contextmanager
    def reading(self) -> Iterator[None]:
        """Keep the weights of linear layers in the compute dtype within this block; do not train in it.

        Autocast would convert them in every pass, which takes most of the time of a pass over few tokens. The results
        are the same, since the rounding is. The copies take half the memory of the weights; without room for them, the
        weights stay as they are.
        """
        converted: dict[int, nn.Parameter] = {}
        kept: list[tuple[nn.Linear, nn.Parameter]] = []
        try:
            for layer, weight in self._convertible():
                if id(weight) not in converted:
                    converted[id(weight)] = nn.Parameter(weight.detach().to(self.compute), requires_grad=False)
                kept.append((layer, weight))
                layer.weight = converted[id(weight)]
            yield
        finally:
            for layer, weight in kept:
                layer.weight = weight

    def _convertible(self) -> list[tuple[nn.Linear, nn.Parameter]]:
        """Linear layers with weights in another dtype than the compute dtype; none if copies would not fit."""
        if self.compute == torch.float32:
            return []
        found = []
        for layer in self.network.modules():
            if type(layer) is nn.Linear and layer.weight.dtype != self.compute:
                assert isinstance(layer.weight, nn.Parameter)
                found.append((layer, layer.weight))
        size = sum(weight.numel() for weight in {weight for _, weight in found}) * self.compute.itemsize
        return found if size <= _COPIES * free_memory(self.device) else []

    def head(self, hidden: Tensor, matrix: nn.Module | None = None) -> Tensor:
        """Logits of final hidden states: (..., D) -> (..., V).

        If the model does more than a matrix product (scaled or soft-capped logits, a head of several layers), its own
        code runs with its decoder replaced by the given states.

        Args:
            hidden: final hidden states, after the last norm.
            matrix: used instead of the model's output matrix, e.g. a frozen copy.
        """
        own = self.output_matrix
        if self.layout.plain_head:
            logits: Tensor = (own if matrix is None else matrix)(hidden)
            return logits
        rows = hidden.reshape(1, -1, hidden.shape[-1])
        given = type(self.layout.given)(last_hidden_state=rows)
        ids = torch.zeros(rows.shape[:2], dtype=torch.long, device=rows.device)
        with contextlib.ExitStack() as stack:
            stack.enter_context(replaced_forward(self.decoder, lambda *_, **__: given))
            if matrix is not None:
                stack.enter_context(replaced_module(self.base, own, matrix))
            logits = self.base(input_ids=ids, use_cache=False).logits
        return logits.reshape(*hidden.shape[:-1], logits.shape[-1])

    def blocks(self) -> list[tuple[str, nn.Module]]:
        """Name and module of every decoder block, first to last."""
        prefix = self.layout.blocks
        blocks = self.base.get_submodule(prefix)
        assert isinstance(blocks, nn.ModuleList)
        return [(f"{prefix}.{index}", block) for index, block in enumerate(blocks)]

    def freeze_but(self, names: Sequence[str]) -> None:
        """Make the named parameters trainable, in float32, and freeze all others.

        Raises:
            UserError: the weights are quantized, so that they cannot be trained or saved.
        """
        if getattr(self.base, "is_quantized", False):
            raise UserError(
                f"model.name: the weights of '{self.source}' are quantized and cannot be trained; give the model in "
                'float16, bfloat16 or float32, or train an adapter (model.adapter = "lora")'
            )
        wanted = set(names)
        for name, parameter in self.network.named_parameters():
            parameter.requires_grad_(name in wanted)
            if name in wanted and parameter.dtype != MASTER:
                self.widened[name] = parameter.dtype
                parameter.data = parameter.data.to(MASTER)

    def narrow(self) -> None:
        """Return trained parameters to the dtype they were loaded in; after `settle` this does not change values."""
        for name, parameter in self.network.named_parameters():
            if name in self.widened:
                parameter.data = parameter.data.to(self.widened.pop(name))

    def trainable(self) -> list[nn.Parameter]:
        """The trainable parameters."""
        return [parameter for parameter in self.network.parameters() if parameter.requires_grad]

    def merge_adapter(self) -> None:
        """Merge an adapter, if there is one, into the weights of the plain network.

        Raises:
            UserError: an adapter of a kind that cannot be merged.
        """
        if self.is_adapted:
            self.unsettled |= merged_names(self.network)
            self.network, untied = merge(self.network)
            self.origin = replace(self.origin, same_layout=self.origin.same_layout and not untied)

    @torch.no_grad()
    def settle(self) -> None:
        """Round the trained weights to the dtype they are saved in, so that the measured model is the saved one."""
        if not self.is_adapted:
            for name, parameter in self.network.named_parameters():
                if parameter.requires_grad or name in self.unsettled:
                    parameter.copy_(parameter.to(self.stored_as(name)).to(self.stored_dtype))

    def finish(self) -> None:
        """Turn the trained network into the one that will be saved; call once, before measuring it.

        An adapter is merged if it could not name a base model that others can find.
        """
        if self.origin.base is None:
            self.merge_adapter()
        self.settle()

    def stored_as(self, name: str) -> torch.dtype:
        """The dtype in which a parameter is stored.

        Args:
            name: its name in the plain network.
        """
        return self.stored_otherwise.get(name, self.stored_dtype)

    def fingerprint(self) -> str:
        """SHA-256 over name, shape and bytes of the current weights."""
        return self._fingerprint.of(self.base)

    def probe_ids(self, num_tokens: int, num_rows: int = 1) -> Tensor:
        """(R, T) fixed token ids on the model's device, for checks of forward passes.

        Ids that the configuration names, e.g. of images, are avoided if the vocabulary has others.
        """
        base: Any = self.base
        config = base.config.to_dict() | base.config.get_text_config().to_dict()
        special = {value for value in config.values() if isinstance(value, int)}
        size = base.get_input_embeddings().weight.shape[0]
        usual = [token for token in range(min(size, 4096)) if token not in special] or list(range(size))
        count = num_rows * num_tokens
        order = torch.randperm(len(usual), generator=torch.Generator().manual_seed(0)).repeat(count)[:count]
        return torch.tensor(usual)[order].view(num_rows, num_tokens).to(self.device)

    def same_logits(self, expected: Tensor, found: Tensor) -> bool:
        """Whether two computations of the same logits agree up to rounding.

        Allowed is a difference of 1e-4 of the largest logit, or of four steps of the coarser dtype of the two: that of
        the expected logits or that of matrix products.
        """
        rounding = max(_ROUNDING, 4 * torch.finfo(expected.dtype).eps, 4 * torch.finfo(self.compute).eps)
        expected = expected.float()
        return bool((expected - found.float()).abs().max() <= rounding * expected.abs().max())

    def _find_layout(self) -> NetworkLayout:
        """Find the network's parts in a forward pass over a few tokens, and check `head` against its own logits.

        Raises:
            UserError: parts are missing, or the logits differ.
        """
        size = self.base.config.get_text_config().vocab_size
        ids = torch.tensor([[token % size for token in _words(self.tokenizer)]], device=self.device)
        with self.evaluating(), self.autocast():
            self.layout, hidden, own = find_layout(self.base, ids)
            ours = self._repeated(hidden)
        if not torch.isfinite(own).all():
            self._refuse_numbers()
        if not self.same_logits(own, ours):
            raise UserError(
                f"model: the logits of {type(self.base).__name__} cannot be recomputed from its final hidden states "
                f"alone (largest difference {(own - ours).abs().max():.3g}), so it cannot be used"
            )
        return self.layout

    @torch.no_grad()
    def _repeated(self, hidden: Tensor) -> Tensor:
        """Logits from final hidden states alone: (..., D) -> (..., V), float32.

        Raises:
            UserError: the model's head needs more than these states.
        """
        try:
            return self.head(hidden).float()
        except (MemoryError, torch.OutOfMemoryError):
            raise
        except Exception as error:  # a model's own code raises anything
            reason = (str(error).splitlines() or [""])[0][:200]
            raise UserError(
                f"model: {type(self.base).__name__} computes its logits from more than final hidden states "
                f"({type(error).__name__}: {reason}), so it cannot be used"
            ) from None

    def _refuse_numbers(self) -> None:
        """Refuse a model with NaN or infinite logits, and name the weight that causes them.

        Raises:
            UserError: always.
        """
        bad = next((name for name, weight in self.base.named_parameters() if not torch.isfinite(weight).all()), None)
        where = f"its weight {bad} holds NaN or infinity" if bad else "its logits are NaN or infinite"
        if not bad and self.compute == torch.float16:
            where += ', in float16, whose largest number is 65504; set model.precision = "float32" or "bfloat16"'
        raise UserError(f"model: cannot use '{self.source}': {where}")


def _words(tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """A few token ids of plain text, which are not consecutive numbers."""
    ids = tokenizer("Some words of a plain text.", add_special_tokens=False)["input_ids"][:6]
    return list(ids) if len(ids) > 3 and ids != list(range(ids[0], ids[0] + len(ids))) else [9, 4, 12, 7, 10]
