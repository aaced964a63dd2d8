"""The contract of an attack, and the context in which it runs.

One file of `attacks/` defines one attack: a subclass of `Attack` with a frozen `Config`, class attributes (the access
it needs, whether plain runs include it, the threats it tests, ...), and `run`, which yields one `Attempt` per variant.
An attempt holds one number in [0, 1] per attacked forget row, in the order of `AttackContext.rows`: whether, or how
much of, the row's knowledge was extracted. All attacks judge answers by `AttackContext.knows`, so their numbers are
comparable. The engine adds statistics, intervals, the recovered share, times and the worst case.

- An attack that changes weights uses `_weights.lent` or `models.temporary_weights.changed_weights`, which restore them:
  after `run` the model is bit-identical to before. It reports the changed share of weights (`Attempt.covered`).
- An attack that reads internal states instead of answers sets `Attempt.inside`; reports keep such numbers apart.
- Under a time limit, generating answers raises `OutOfTime`; other long loops call `AttackContext.check_time`.
- A row that the adversary used (e.g. trained on) gets a reason instead of a number.
- Every attempt that was yielded is kept, even if the attack fails or runs out of time later.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, TypeVar

from torch import Generator, Tensor

from expunge.core.attack_record import Access
from expunge.core.errors import UserError
from expunge.core.progress import SILENT, Progress
from expunge.core.schema import Better, Frozen
from expunge.data.encode import DOCUMENT_PROMPT
from expunge.data.example import Example
from expunge.data.generator import named_generator
from expunge.data.splits import Splits
from expunge.evaluate.answer_kinds import Labeller
from expunge.evaluate.base import Item
from expunge.evaluate.config import EvaluateConfig
from expunge.models.base import LanguageModel
from expunge.models.continuations import continued
from expunge.models.stored_weights import StoredWeights

Value = float | str
"""How much of one row's knowledge was extracted, in [0, 1], or the reason why there is no number."""

Cached = TypeVar("Cached")
ORIGINAL = "original/"

GIVEN = "the adversary was given this row"
"""The reason of a row that the attack used and that therefore cannot be scored."""


class OutOfTime(Exception):
    """The time budget is exhausted; attempts that were yielded are kept."""


def numbers_of(values: Iterable[Value]) -> list[float]:
    """The values that are numbers."""
    return [value for value in values if not isinstance(value, str)]


@dataclass(frozen=True)
class InternalMeasure:
    """What a number measures if it is read from a model's internal states instead of its answers."""

    measure: str
    """The quantity in a few words, e.g. `answer told from its distractors by a linear probe`."""
    chance: float | None = None
    """Value of a model without the knowledge, if defined."""
    original: Sequence[Value] = ()
    """The same quantity of a model with the knowledge, e.g. the original, per row; empty: not measured."""
    better: Better = "lower"
    """The desired direction."""


@dataclass(frozen=True)
class CurvePoint:
    """Result of one strength or length of an attack."""

    at: float
    knowledge: Sequence[Value]
    """R values, as in `Attempt`."""


@dataclass(frozen=True)
class Attempt:
    """Result of one variant of an attack."""

    variant: str
    """Short name, unique within the attack; "" for its only variant."""
    knowledge: Sequence[Value]
    """R values in the order of `AttackContext.rows`."""
    given: int = 0
    """Number of rows that the adversary needed: forget rows, neighbours or others."""
    steps: int = 0
    """Optimizer or search steps."""
    seconds: float | None = None
    """Time of this variant. Default: the time since the previous attempt."""
    along: str = ""
    """The quantity that varies along the curve, with its unit, e.g. `steps`."""
    curve: Sequence[CurvePoint] = ()
    inside: InternalMeasure | None = None
    """Set if `knowledge` is read from internal states. Default: it is judged from answers."""
    tries: tuple[str, ...] | None = None
    """The threats of `Attack.tries` that this variant tests. Default: all."""
    covered: float | None = None
    """Share of the weights of the decoder blocks that it changed; None if it changes no weights."""


@dataclass(frozen=True)
class AttackContext:
    """The attacked model, the rows it should have forgotten, and how answers are judged."""

    model: LanguageModel
    """The model under attack; in evaluation mode, on its device."""
    splits: Splits
    """All rows of the run, documents cut into pieces."""
    rows: tuple[Example, ...]
    """R attacked forget rows: all, or a seeded sample."""
    labeller: Labeller
    config: EvaluateConfig
    seed: int = 0
    original_plain: Sequence[Value] = ()
    """Knowledge of the original model per row, asked directly; empty if unknown."""
    unlearned_plain: Sequence[Value] = ()
    """The same for the model under attack."""
    load_original: Callable[[], LanguageModel] | None = None
    load_retrained: Callable[[], LanguageModel] | None = None
    read_original: Callable[[LanguageModel], StoredWeights | None] | None = None
    """Given a model of the same shape, reads the original weights without loading that model, if possible."""
    tensors: Mapping[str, Tensor] = field(default_factory=dict)
    """Tensors that the run saved beside its weights, e.g. the steering direction."""
    steered: int | None = None
    """Layer that the run's forget loss was configured for."""
    trained: Sequence[str] = ()
    """Names of the parameters that the run trained."""
    deadline: float | None = None
    """End of the time budget on the clock `time.perf_counter()`. Default: no limit."""
    progress: Progress = SILENT
    cache: dict[str, Any] = field(default_factory=dict)
    """Results that attacks on this model share; those of the original model have names that start with `ORIGINAL`."""

    @property
    def units(self) -> list[str | None]:
        """The subject or document of each attacked row; intervals resample rows of one unit together."""
        return [row.unit for row in self.rows]

    def cached(self, name: str, compute: Callable[[], Cached]) -> Cached:
        """The result cached under a name; computed on first use."""
        if name not in self.cache:
            self.cache[name] = compute()
        found: Cached = self.cache[name]
        return found

    def check_time(self) -> None:
        """Call it in long loops that do not generate answers.

        Raises:
            OutOfTime: the time budget is exhausted.
        """
        if self.deadline is not None and time.perf_counter() > self.deadline:
            raise OutOfTime

    def original(self) -> LanguageModel:
        """The original model, freshly loaded; callers must not hold it for longer than needed.

        Raises:
            UserError: it is unknown.
        """
        if self.load_original is None:
            raise UserError("this attack needs the original model; pass --original MODEL")
        return self.load_original()

    def retrained(self) -> LanguageModel | None:
        """The model that was never trained on the forget rows, freshly loaded; None if there is none."""
        return None if self.load_retrained is None else self.load_retrained()

    def generator(self, name: str) -> Generator:
        """Random numbers that depend on the seed and a name only."""
        return named_generator(f"{self.seed}/attack/{name}")

    def answers(
        self,
        prompts: Sequence[Sequence[int]],
        seeds: Sequence[Sequence[str]] | None = None,
        temperature: float = 1.0,
        label: str = "asking",
        limits: Sequence[int] | None = None,
    ) -> list[list[str]]:
        """Texts that the model, in its current state, generates after each prompt; all prompts are batched together.

        Args:
            prompts: P prompts.
            seeds: one string per draw for each prompt. Default: one greedy answer each.
            temperature: of sampling.
            label: text of the progress bar.
            limits: maximum answer length of each prompt, in tokens. Default: `evaluate.max_new_tokens`.

        Raises:
            OutOfTime: the time budget is exhausted.
        """
        self.check_time()
        longest = [self.config.max_new_tokens] * len(prompts) if limits is None else limits
        with self.progress.bar(label, len(prompts)) as bar:
            found = continued(
                self.model,
                prompts,
                longest,
                seeds,
                temperature=temperature,
                max_reasoning_tokens=self.config.max_reasoning_tokens,
                bar=bar,
            )
        return [[self.model.encoder.decode(ids) for ids in some] for some in found]

    def knows(self, row: Example, text: str) -> float:
        """Whether a text states the fact of a row, 1 or 0, by the rule that counts an answer as a leak.

        The text must contain a keyword (`evaluate.match`) if the row has keywords; otherwise its word overlap with the
        stored answer must be at least `evaluate.kinds.rouge_l_recall`.
        """
        continuation = None
        if row.text is not None:
            encoder = self.model.encoder
            continuation = encoder.decode(encoder.document(row.text, row.id, DOCUMENT_PROMPT).labels)
        return float(self.labeller.says(Item(row, greedy=text, continuation=continuation, match=self.config.match)))

    def ask_directly(self, label: str = "asking plainly") -> list[Value]:
        """Knowledge that the model, in its current state, shows in greedy answers to the plain questions: R values."""
        answers = self.answers([self.model.encoder.asked(row) for row in self.rows], label=label)
        return [self.knows(row, texts[0]) for row, texts in zip(self.rows, answers, strict=True)]


class Attack(ABC):
    """Tries to extract forgotten knowledge; one file of `attacks/` defines one subclass."""

    class Config(Frozen):
        """Options, each explained once here."""

    access: ClassVar[Access]
    """The least access that the adversary needs."""
    default: ClassVar[bool] = False
    """Whether plain runs include it within their time budget: needs prompts only, and is fast."""
    rank: ClassVar[int] = 9
    """Order among attacks of the same access; the first run before the time budget is exhausted."""
    needs_original: ClassVar[bool] = False
    """Whether it is impossible without the original model."""
    needs_retrained: ClassVar[bool] = False
    """Whether it is impossible without a model that was never trained on the forget rows."""
    harms: ClassVar[bool] = False
    """Whether its changes cost any model knowledge, so that it must also be applied to the original as a control."""
    tries: ClassVar[tuple[str, ...]] = ()
    """Threats that it tests, as reports name them; a report lists those that no attack has tested as not tested.

    A literal, since reports read it without importing the class (`core.plugins.attribute`).
    """

    def __init__(self, config: Any) -> None:
        self.config = config

    @property
    def name(self) -> str:
        """The name of its file."""
        return type(self).__module__.rpartition(".")[2]

    def check(self, context: AttackContext) -> None:  # noqa: B027
        """Refuse options or rows that it cannot work with, before any attack begins.

        Raises:
            UserError: the problem, in one line.
        """

    @abstractmethod
    def run(self, context: AttackContext) -> Iterator[Attempt]:
        """Carry out the attack, variant by variant.

        The result depends on the context and its seed only.

        Raises:
            ExpungeError: the attack cannot continue; attempts that were yielded are kept.
        """
