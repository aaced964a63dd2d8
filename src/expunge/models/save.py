"""Models out: a folder that `from_pretrained` loads, or an adapter folder."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from safetensors.torch import save_file
from torch import Tensor

from expunge.core.errors import ExpungeError
from expunge.core.files import publish_folder
from expunge.models.base import LanguageModel

CARD = "README.md"
TENSORS = "expunge.safetensors"


def save_model(
    model: LanguageModel, folder: Path, card: str | None = None, tensors: Mapping[str, Tensor] | None = None
) -> None:
    """Write network and tokenizer as safetensors; the folder appears only when it is whole.

    A model with an adapter gives an adapter folder. Weights are cast to the dtype they came in.

    Args:
        model: what to save.
        folder: where.
        card: text of its model card.
        tensors: what else is worth keeping, e.g. the direction that hidden states were steered to.
    """
    with publish_folder(folder) as partial:
        if not hasattr(model.network, "peft_config"):
            model.network.to(model.stored_dtype)
        model.network.save_pretrained(partial, safe_serialization=True)
        model.tokenizer.save_pretrained(partial)
        if card is not None:
            (partial / CARD).write_text(card, encoding="utf-8")
        if tensors:
            save_file({name: tensor.contiguous().cpu() for name, tensor in tensors.items()}, partial / TENSORS)


def push_to_hub(folder: Path, repo: str) -> str:
    """Upload a saved model folder; gives its address.

    Raises:
        ExpungeError: the hub refused or cannot be reached.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError

    api = HfApi()
    try:
        api.create_repo(repo, exist_ok=True, private=True)
        return str(api.upload_folder(repo_id=repo, folder_path=folder))
    except (HfHubHTTPError, OSError, ValueError) as error:
        raise ExpungeError(f"cannot push to '{repo}': {str(error).strip().splitlines()[0]}") from None
