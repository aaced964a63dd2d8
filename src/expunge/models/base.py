"""One language model, whatever its architecture: blocks, decoder and head found by name."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from expunge.core.errors import UserError
from expunge.data.encode import Encoder
from expunge.models.store import StateMemory

_BLOCK_LISTS = ("layers", "h", "blocks")
"""What architectures call their list of decoder blocks: Llama and its kin and GPT-NeoX, GPT-2, others."""


class LanguageModel:
    """A causal language model with its tokenizer.

    Args:
        network: a transformers causal LM, or a peft model around one.
        tokenizer: its tokenizer.
        encoder: how questions and answers are laid out.
        precision: `float32`, or `bfloat16` for autocast over the weights.
        source: the name, path or id that the user gave.
        stored_dtype: dtype of the weights where they came from, and where they will be saved.

    Raises:
        UserError: the network's parts cannot be found, or its head does more than a matrix product.
    """

    def __init__(
        self,
        network: Any,
        tokenizer: PreTrainedTokenizerBase,
        encoder: Encoder,
        precision: str = "float32",
        source: str = "a loaded model",
        stored_dtype: torch.dtype = torch.float32,
    ) -> None:
        self.network = network
        self.tokenizer = tokenizer
        self.encoder = encoder
        self.precision = precision
        self.source = source
        self.stored_dtype = stored_dtype
        self.state_memory = StateMemory()
        self._check_head()

    @property
    def base(self) -> PreTrainedModel:
        """The transformers model, inside its adapter if it has one."""
        inner = self.network.get_base_model() if hasattr(self.network, "peft_config") else self.network
        assert isinstance(inner, PreTrainedModel)
        return inner

    @property
    def decoder(self) -> nn.Module:
        """The part that maps token ids to final hidden states."""
        return self.base.base_model

    @property
    def output_matrix(self) -> nn.Module:
        """The linear layer from final hidden states to logits."""
        base: Any = self.base
        head: nn.Module = base.get_output_embeddings()
        return head

    @property
    def device(self) -> torch.device:
        """Where inputs go."""
        device: torch.device = next(self.network.parameters()).device
        return device

    def autocast(self) -> contextlib.AbstractContextManager[Any]:
        """The arithmetic of every forward pass."""
        return torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.precision == "bfloat16")

    @contextlib.contextmanager
    def evaluating(self) -> Iterator[None]:
        """Evaluation mode within this block, and the mode before it afterwards."""
        was_training = self.network.training
        self.network.eval()
        try:
            yield
        finally:
            self.network.train(was_training)

    @contextlib.contextmanager
    def reading(self) -> Iterator[None]:
        """Linear layers hold their weights in the precision of the arithmetic within this block, where no weight moves.

        Autocast would convert them in every pass, which is most of what a pass over few tokens does. Same results: it
        is the same rounding. Takes half the memory of the weights that are converted; untouched where there are none.
        """
        converted: dict[int, nn.Parameter] = {}
        kept: list[tuple[nn.Module, nn.Parameter]] = []
        layers: list[nn.Module] = [module for module in self.network.modules() if type(module) is nn.Linear]
        try:
            for layer in layers if self.precision == "bfloat16" else ():
                weight = layer.weight
                assert isinstance(weight, nn.Parameter)
                if weight.dtype == torch.float32:
                    if id(weight) not in converted:
                        converted[id(weight)] = nn.Parameter(weight.detach().to(torch.bfloat16), requires_grad=False)
                    kept.append((layer, weight))
                    layer.weight = converted[id(weight)]
            yield
        finally:
            for layer, weight in kept:
                layer.weight = weight

    def head(self, hidden: Tensor, matrix: nn.Module | None = None) -> Tensor:
        """Logits of final hidden states: (..., D) -> (..., V).

        Args:
            hidden: final hidden states, after the last norm.
            matrix: another output matrix than the current one, e.g. a frozen copy.
        """
        logits: Tensor = (self.output_matrix if matrix is None else matrix)(hidden)
        cap = getattr(self.base.config.get_text_config(), "final_logit_softcapping", None)
        return torch.tanh(logits / cap) * cap if cap else logits

    def blocks(self) -> list[tuple[str, nn.Module]]:
        """Name and module of every decoder block, first to last.

        Raises:
            UserError: this architecture calls its blocks something unknown.
        """
        for prefix, module in self.base.named_modules():
            parent, _, name = prefix.rpartition(".")
            if name in _BLOCK_LISTS and isinstance(module, nn.ModuleList) and parent.count(".") <= 1:
                return [(f"{prefix}.{index}", block) for index, block in enumerate(module)]
        lists = [name for name, module in self.base.named_modules() if isinstance(module, nn.ModuleList)]
        raise UserError(
            f"model: cannot find the decoder blocks of {type(self.base).__name__}; "
            f"lists of modules in it: {', '.join(lists) or 'none'}"
        )

    def freeze_but(self, names: Sequence[str]) -> None:
        """Let only the named parameters move, in float32."""
        wanted = set(names)
        for name, parameter in self.network.named_parameters():
            parameter.requires_grad_(name in wanted)
            if name in wanted and parameter.dtype != torch.float32:
                parameter.data = parameter.data.float()

    def trainable(self) -> list[nn.Parameter]:
        """Parameters that may move."""
        return [parameter for parameter in self.network.parameters() if parameter.requires_grad]

    @torch.no_grad()
    def settle(self) -> None:
        """Round the trained weights to the dtype that they are saved in: what is measured is what is saved."""
        if not hasattr(self.network, "peft_config"):
            for parameter in self.trainable():
                parameter.copy_(parameter.to(self.stored_dtype))

    def fingerprint(self) -> str:
        """SHA-256 over name, shape and bytes of every weight."""
        digest = hashlib.sha256()
        for name, tensor in self.base.state_dict().items():
            digest.update(f"{name}{tuple(tensor.shape)}{tensor.dtype}".encode())
            digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
        return digest.hexdigest()

    @torch.no_grad()
    def _check_head(self) -> None:
        """Compare `head` with the model's own logits once, so that no unknown scaling is ever left out."""
        ids = torch.arange(1, 5, device=self.device)[None] % self.base.config.get_text_config().vocab_size
        with self.evaluating(), self.autocast():
            own = self.base(input_ids=ids, use_cache=False).logits.float()
            ours = self.head(self.decoder(input_ids=ids, use_cache=False).last_hidden_state).float()
        if not torch.allclose(own, ours, rtol=1e-3, atol=1e-2):
            raise UserError(
                f"model: {type(self.base).__name__} changes its logits after the output matrix in a way that is not "
                f"known here (largest difference {(own - ours).abs().max():.3g})"
            )
