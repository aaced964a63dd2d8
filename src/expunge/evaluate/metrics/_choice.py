"""Multiple choice: which option the model would take."""

from __future__ import annotations

from expunge.evaluate.base import Absent, Item


def takes_right_option(item: Item) -> bool:
    """Whether the right option's letter has the highest log-probability, the first of equals being taken.

    Raises:
        Absent: a row without options, or log-probabilities that are no numbers.
    """
    if not item.choice_logp:
        raise Absent("rows without options")
    if any(logp != logp for logp in item.choice_logp):
        raise Absent("the model gave a probability that is not a number")
    taken = max(range(len(item.choice_logp)), key=lambda option: item.choice_logp[option])
    return item.example.options[taken] == item.example.answer
