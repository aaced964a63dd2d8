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
from collections.abc import Callable, Iterator, Mapping, Sequence
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
"""What was got of one row, in [0, 1], or the reason why there is no number."""

Kept = TypeVar("Kept")
ORIGINAL = "original/"

GIVEN = "the adversary was given this row"
"""The reason of a row that an attack used, and so cannot be scored on."""


class OutOfTime(Exception):
    """The time that was allowed is over; what has been yielded is kept."""


@dataclass(frozen=True)
class InternalMeasure:
    """What a number tells of knowledge that no answer gives."""

    measure: str
    """What is counted, in a few words, e.g. `answer told from its distractors by a linear probe`."""
    chance: float | None = None
    """Value of a model that knows nothing, where one is defined."""
    original: Sequence[Value] = ()
    """The same number, for each row, of a model that has all of it, e.g. the original; empty: not measured."""
    better: Better = "lower"
    """Which direction is wanted."""


@dataclass(frozen=True)
class CurvePoint:
    """Where a strength or a length of the attack varies: what one setting got."""

    at: float
    knowledge: Sequence[Value]
    """One a row, as in `Attempt`."""


@dataclass(frozen=True)
class Attempt:
    """One variant of an attack, carried out."""

    variant: str
    """Short name, distinct within the attack; "" for an attack's only one."""
    knowledge: Sequence[Value]
    """R values in the order of `AttackContext.rows`."""
    given: int = 0
    """Rows that the adversary needed: forget rows, neighbours or others."""
    steps: int = 0
    """Optimizer or search steps."""
    seconds: float | None = None
    """Its own time; None: all since the attempt before."""
    along: str = ""
    """What varies along the curve, with its unit, e.g. `steps`."""
    curve: Sequence[CurvePoint] = ()
    inside: InternalMeasure | None = None
    """None: `knowledge` is what the model said."""
    tries: tuple[str, ...] | None = None
    """Which of `Attack.tries` this variant tests; default: all."""
    covered: float | None = None
    """Share of the weights of the decoder blocks that it changed; None: it changes none."""


@dataclass(frozen=True)
class AttackContext:
    """What an adversary is given: a model, what it should have forgotten, and how an answer is judged."""

    model: LanguageModel
    """The model under attack; in evaluation mode, on its device."""
    splits: Splits
    """All rows of the run, documents cut into pieces."""
    rows: tuple[Example, ...]
    """R forget rows that are attacked: all, or a seeded sample."""
    labeller: Labeller
    config: EvaluateConfig
    seed: int = 0
    original_plain: Sequence[Value] = ()
    """What the original model says of each row when asked plainly; empty where it is unknown."""
    unlearned_plain: Sequence[Value] = ()
    """The same of the model under attack."""
    load_original: Callable[[], LanguageModel] | None = None
    load_retrained: Callable[[], LanguageModel] | None = None
    read_original: Callable[[LanguageModel], StoredWeights | None] | None = None
    """From a model of its shape to the weights of the original one, where they can be read without loading it."""
    tensors: Mapping[str, Tensor] = field(default_factory=dict)
    """What the run saved beside its weights, e.g. the direction that it steered to."""
    steered: int | None = None
    """The layer that the run's forget loss was told to look at."""
    trained: Sequence[str] = ()
    """Names of the parameters that the run could move."""
    deadline: float | None = None
    """When the time is over, by `time.perf_counter()`; None: never."""
    progress: Progress = SILENT
    kept: dict[str, Any] = field(default_factory=dict)
    """What attacks keep for each other of this model, and under names that start with `ORIGINAL` of the original."""

    @property
    def units(self) -> list[str | None]:
        """What each attacked row is about: intervals draw rows of one unit together."""
        return [row.unit for row in self.rows]

    def keep(self, name: str, compute: Callable[[], Kept]) -> Kept:
        """What is kept under a name, computed when it is first asked for."""
        if name not in self.kept:
            self.kept[name] = compute()
        found: Kept = self.kept[name]
        return found

    def check_time(self) -> None:
        """Call it in loops that take long without asking the model anything.

        Raises:
            OutOfTime: the time is over.
        """
        if self.deadline is not None and time.perf_counter() > self.deadline:
            raise OutOfTime

    def original(self) -> LanguageModel:
        """The original model, loaded anew: keep what is needed of it and let it go.

        Raises:
            UserError: nobody said which it is.
        """
        if self.load_original is None:
            raise UserError("the original model is not known here; name it: --original MODEL")
        return self.load_original()

    def retrained(self) -> LanguageModel | None:
        """The model that never saw the forget rows, loaded anew; None if there is none."""
        return None if self.load_retrained is None else self.load_retrained()

    def generator(self, name: str) -> Generator:
        """Random numbers that depend on the seed and a name alone."""
        return named_generator(f"{self.seed}/attack/{name}")

    def answers(
        self,
        prompts: Sequence[Sequence[int]],
        seeds: Sequence[Sequence[str]] | None = None,
        temperature: float = 1.0,
        label: str = "asking",
        limits: Sequence[int] | None = None,
    ) -> list[list[str]]:
        """What the model as it is now says after each prompt: texts, all prompts batched together.

        Args:
            prompts: P prompts.
            seeds: for each prompt one string a draw; None: one greedy answer each.
            temperature: of the sampling.
            label: what to call this on the progress bar.
            limits: for each prompt the longest answer, in tokens; None: as everywhere (`evaluate.max_new_tokens`).

        Raises:
            OutOfTime: the time is over.
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
        """Whether a text says the fact of a row, 1 or 0, by the rule that calls an answer a leak.

        A keyword (`evaluate.match`) where the row has keywords, else a word overlap with the stored answer of at least
        `evaluate.kinds.rouge_l_recall`.
        """
        continuation = None
        if row.text is not None:
            encoder = self.model.encoder
            continuation = encoder.decode(encoder.document(row.text, row.id, DOCUMENT_PROMPT).labels)
        return float(self.labeller.says(Item(row, greedy=text, continuation=continuation, match=self.config.match)))

    def said(self, label: str = "asking plainly") -> list[Value]:
        """What the model as it is now says of each row when asked plainly and answering greedily: R values."""
        answers = self.answers([self.model.encoder.asked(row) for row in self.rows], label=label)
        return [self.knows(row, texts[0]) for row, texts in zip(self.rows, answers, strict=True)]


class Attack(ABC):
    """Tries to get forgotten knowledge back; one file of `attacks/` defines one subclass."""

    class Config(Frozen):
        """Options, each explained once here."""

    access: ClassVar[Access]
    """The least that the adversary must have."""
    default: ClassVar[bool] = False
    """Whether plain runs carry it out within their time budget: prompts only, and quick."""
    rank: ClassVar[int] = 9
    """Place among attacks of the same access: the first are carried out before the time is over."""
    needs_original: ClassVar[bool] = False
    """Whether there is nothing to do without the original model."""
    needs_retrained: ClassVar[bool] = False
    """Whether there is nothing to do without a model that never saw the forget rows."""
    harms: ClassVar[bool] = False
    """Whether its changes cost any model knowledge, so that the original must be seen under the same changes."""
    tries: ClassVar[tuple[str, ...]] = ()
    """Threats that it tests, as reports name them; a report lists those that no attack has tested as not tested.

    A literal, since reports read it without importing the class (`core.plugins.attribute`).
    """

    def __init__(self, config: Any) -> None:
        self.config = config

    @property
    def name(self) -> str:
        """The file's."""
        return type(self).__module__.rpartition(".")[2]

    def check(self, context: AttackContext) -> None:  # noqa: B027
        """Refuse, before anything is attacked, options or rows that it cannot work with.

        Raises:
            UserError: what is wrong, in one line.
        """

    @abstractmethod
    def run(self, context: AttackContext) -> Iterator[Attempt]:
        """Carry the attack out, variant by variant.

        The result depends on the context and its seed alone.

        Raises:
            ExpungeError: it cannot go on; what was yielded before is kept.
        """
