"""Small local models that score texts: a sentence encoder, and classifiers of texts and of pairs of texts."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import metadata_load
from safetensors import SafetensorError
from torch import Tensor
from transformers import AutoConfig, AutoModel, AutoModelForSequenceClassification, AutoTokenizer
from transformers.utils.hub import cached_file

from expunge.core.errors import ExpungeError, UserError
from expunge.data.languages import not_english
from expunge.models.batches import Budget, in_batches
from expunge.models.load import helper_device
from expunge.models.model_name import check_model_name
from expunge.models.pull import embedded, pull

_UNREADABLE = (OSError, ValueError, SafetensorError)
"""Errors of transformers and safetensors for missing or damaged files."""

_ENCODER_LENGTH = 256
"""Word pieces of a sentence that are read, as all-MiniLM-L6-v2 was trained."""
_NLI_LENGTH = 512
_ENTAILMENT = "entailment"
UNKNOWN_SHARE = 0.2
"""Largest share of unknown tokens with which a text still counts as readable."""


class Unavailable(ExpungeError):
    """A model that can neither be found on this machine nor downloaded now."""


class Reader(ABC):
    """A model that scores texts in the languages that it can read.

    If the model card names English alone, texts in other languages have no score; without a card, or with several
    languages, texts with too many tokens outside the vocabulary have none.
    """

    _place: str
    """Folder or hub id."""

    @property
    @abstractmethod
    def _parts(self) -> tuple[Any, Any]:
        """Model and tokenizer."""

    def cannot_read(self, text: str) -> str | None:
        """Reason why the model cannot score a text; None if it can.

        Raises:
            UserError: the model is damaged.
            Unavailable: it cannot be downloaded.
        """
        _, tokenizer = self._parts
        if self._languages == ("en",) and (other := not_english(text)):
            return f"{other}, and the model reads English only"
        pieces = tokenizer.tokenize(text)
        if pieces.count(tokenizer.unk_token) > UNKNOWN_SHARE * len(pieces):
            return "text in letters that the model's vocabulary lacks"
        return None

    @cached_property
    def _languages(self) -> tuple[str, ...]:
        """Languages that the model card names."""
        try:
            path = cached_file(self._place, "README.md", _raise_exceptions_for_missing_entries=False)
            found = (metadata_load(path) or {}).get("language") if path else None
        except Exception:  # a card that cannot be read says nothing
            return ()
        return (found,) if isinstance(found, str) else tuple(map(str, found or ()))


class SentenceEncoder(Reader):
    """Unit vectors of sentences: the mean of their tokens' last hidden states (arXiv:1908.10084).

    Args:
        name: embedded name, local folder or hub id; loaded on first use.
        option: dotted path of the option that names it.

    Raises:
        UserError: the name cannot lead anywhere.
    """

    def __init__(self, name: str, option: str) -> None:
        check_model_name(name, option)
        if name in embedded() and embedded()[name].kind != "sentence encoder":
            raise UserError(f"{option}: '{name}' is a {embedded()[name].kind}, not a sentence encoder")
        self.name = name
        self._option = option

    @torch.inference_mode()
    def encode(self, texts: Sequence[str]) -> Tensor:
        """N texts to unit vectors: (N, D) float32; a row of NaN for a text that the encoder cannot read.

        Raises:
            UserError: the encoder is damaged, or pools in another way than by the mean.
            Unavailable: it cannot be downloaded.
        """
        model, tokenizer = self._parts
        vectors = torch.zeros(len(texts), model.config.hidden_size)

        def read(indices: list[int], batch: Any) -> None:
            hidden = model(**batch).last_hidden_state
            mask = batch["attention_mask"][..., None].to(hidden)
            mean = (hidden * mask).sum(1) / mask.sum(1)
            vectors[indices] = torch.nn.functional.normalize(mean, dim=-1).float().cpu()

        _in_batches(model, tokenizer, (texts,), _ENCODER_LENGTH, read)
        vectors[[index for index, text in enumerate(texts) if self.cannot_read(text)]] = torch.nan
        return vectors

    @cached_property
    def _place(self) -> str:  # type: ignore[override]
        if self.name not in embedded():
            return self.name
        try:
            return str(pull(self.name))
        except ExpungeError as error:
            raise Unavailable(str(error)) from None

    @cached_property
    def _parts(self) -> tuple[Any, Any]:
        place = self._place
        parts = _load(AutoModel, place, self._option)
        if not _pools_by_mean(place):
            raise UserError(
                f"{self._option}: '{self.name}' does not pool by the mean over tokens, which is needed here"
            )
        return parts


class Classifier(Reader):
    """A classifier, of which one label counts.

    Args:
        name: local folder or hub id; its config is read immediately, its weights on first use.
        label: name of the label, in any case.
        option: dotted path of the option that names the classifier.

    Raises:
        UserError: there is no such model, or it has no such label.
        Unavailable: it cannot be downloaded.
    """

    def __init__(self, name: str, label: str, option: str) -> None:
        self.name = name
        self._place = name
        self._option = option
        self._label = _label_place(name, label, option)

    @cached_property
    def _parts(self) -> tuple[Any, Any]:
        return _load(AutoModelForSequenceClassification, self.name, self._option)

    def _logits(self, sides: tuple[Sequence[str], ...], longest: int) -> Tensor:
        """Logits of all labels: texts, or first and second texts, N each -> (N, labels) float32."""
        model, tokenizer = self._parts
        found = torch.zeros(len(sides[0]), model.config.num_labels)

        def read(indices: list[int], batch: Any) -> None:
            found[indices] = model(**batch).logits.float().cpu()

        _in_batches(model, tokenizer, sides, longest, read)
        return found


class TextClassifier(Classifier):
    """How likely a label of a text classifier is."""

    @torch.inference_mode()
    def probabilities(self, texts: Sequence[str], longest: int) -> list[float]:
        """Probability of the label for each text, of whose tokens `longest` are read.

        Raises:
            UserError: the model is damaged, or its weights lack the classifier.
            Unavailable: it cannot be downloaded.
        """
        found: list[float] = self._logits((texts,), longest).softmax(-1)[:, self._label].tolist()
        return found


class EntailmentJudge(Classifier):
    """Whether one text follows from another, by a classifier of natural-language inference (arXiv:1508.05326)."""

    def __init__(self, name: str, option: str) -> None:
        super().__init__(name, _ENTAILMENT, option)

    @torch.inference_mode()
    def entails(self, pairs: Sequence[tuple[str, str]]) -> list[bool]:
        """For each (premise, hypothesis): is entailment the most likely label?

        Raises:
            UserError: the model is damaged, or its weights lack the classifier.
            Unavailable: it cannot be downloaded.
        """
        sides = ([premise for premise, _ in pairs], [hypothesis for _, hypothesis in pairs])
        found: list[bool] = (self._logits(sides, _NLI_LENGTH).argmax(-1) == self._label).tolist()
        return found


def _label_place(name: str, label: str, option: str) -> int:
    """The output of a classifier for a label, by its config."""
    check_model_name(name, option)
    try:
        labels = AutoConfig.from_pretrained(name, trust_remote_code=False).id2label
    except _UNREADABLE as error:
        raise _refusal(name, option, error) from None
    found = [int(index) for index, text in labels.items() if str(text).casefold() == label.casefold()]
    if not found:
        raise UserError(
            f"{option}: '{name}' has no label '{label}'; its labels: {', '.join(map(str, labels.values()))}"
        )
    return found[0]


def _load(kind: Any, place: str, option: str) -> tuple[Any, Any]:
    """Model in float32 and tokenizer. A pooler may be missing: nothing here uses one of its own."""
    try:
        tokenizer = AutoTokenizer.from_pretrained(place, trust_remote_code=False)
        model, found = kind.from_pretrained(
            place, dtype=torch.float32, use_safetensors=True, output_loading_info=True, trust_remote_code=False
        )
    except _UNREADABLE as error:
        raise _refusal(place, option, error) from None
    if tokenizer.pad_token is None:
        raise UserError(f"{option}: cannot use '{place}': its tokenizer has no padding token")
    pooled = kind is AutoModel
    if missing := sorted(key for key in found["missing_keys"] if not (pooled and key.startswith("pooler."))):
        raise UserError(f"{option}: cannot use '{place}': its weights lack {missing[0]} (of {len(missing)} missing)")
    return model.eval().to(helper_device()), tokenizer


def _pools_by_mean(place: str) -> bool:
    """Whether the folder describes mean pooling; True without a description."""
    path = cached_file(place, "1_Pooling/config.json", _raise_exceptions_for_missing_entries=False)
    return path is None or bool(json.loads(Path(path).read_text(encoding="utf-8")).get("pooling_mode_mean_tokens"))


def _in_batches(
    model: Any, tokenizer: Any, sides: tuple[Sequence[str], ...], longest: int, read: Callable[[list[int], Any], None]
) -> None:
    """Read texts in batches of similar length.

    Args:
        model: on its device.
        tokenizer: its own.
        sides: the texts, or first and second texts.
        longest: tokens of a text that are read.
        read: called with the places of a batch's texts and its padded inputs.
    """
    longest = min(longest, tokenizer.model_max_length)
    encoded = tokenizer(*map(list, sides), truncation=True, max_length=longest)

    def work(indices: list[int], _: int) -> None:
        batch = {key: [values[index] for index in indices] for key, values in encoded.items()}
        read(indices, tokenizer.pad(batch, return_tensors="pt").to(model.device))

    lengths = [len(ids) for ids in encoded["input_ids"]]
    in_batches(Budget(model.config), model.device, "states", lengths, work)


def _refusal(name: str, option: str, error: Exception) -> ExpungeError:
    """A damaged folder is the user's to repair; a hub that does not answer only leaves a score absent."""
    reason = str(error).strip().split("\n", 1)[0]
    if Path(name).exists():
        return UserError(f"{option}: cannot load '{name}': {reason}")
    return Unavailable(f"cannot load '{name}': {reason}")
