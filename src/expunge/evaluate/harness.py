"""Scores of a loaded model by lm-eval, EleutherAI's harness, for comparison with published figures."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from typing import Any

from expunge.core.errors import UserError, near
from expunge.core.records import Score, Scores
from expunge.models.base import LanguageModel

_PREFIX = "lm-eval: "
"""Prefix of a task's name, which keeps tasks apart from sets of rows."""
_NORMAL = 1.96
"""Half width of a 95% interval, in standard errors."""


def check_tasks(tasks: Sequence[str]) -> None:
    """Refuse tasks before any weights are loaded.

    Raises:
        UserError: lm-eval is not installed, or has no such task.
    """
    if tasks and find_spec("lm_eval") is None:
        raise UserError("--lm-eval: lm-eval is not installed; pip install 'expunge[lm-eval]'")
    if not tasks:
        return
    from lm_eval.tasks import TaskManager

    manager = TaskManager()
    for task in tasks:
        if not manager.match_tasks([task]):
            raise UserError(f"--lm-eval: there is no task '{task}'{near(task, manager.all_tasks)}")


def harness_scores(model: LanguageModel, tasks: Sequence[Any], seed: int, batch_size: int = 16) -> Scores:
    """Scores of tasks and of groups of tasks.

    The scores name no wanted direction, since a low accuracy is wanted on what should be forgotten. With several
    processes, only the first returns scores.

    Args:
        model: any model; its chat template is not used.
        tasks: names as `lm-eval ls tasks` lists them.
        seed: of everything that the tasks draw.
        batch_size: sequences in one batch.

    Returns:
        `lm-eval: TASK` -> metric, followed by the filter's name unless that is `none` -> score, with an interval of
        1.96 standard errors of the harness on either side.

    Raises:
        UserError: as `check_tasks`, or a task's data cannot be loaded.
    """
    check_tasks([task for task in tasks if isinstance(task, str)])
    from lm_eval import simple_evaluate
    from lm_eval.models.huggingface import HFLM

    try:
        with model.evaluating():  # HFLM switches the network to evaluation mode, and leaves it so
            harness = HFLM(
                pretrained=model.network,
                backend="causal",
                tokenizer=model.tokenizer,
                batch_size=batch_size,
                mixed_precision_dtype=None if model.precision == "float32" else model.precision,
            )
            found = simple_evaluate(
                model=harness,
                tasks=list(tasks),
                log_samples=False,
                random_seed=seed,
                numpy_random_seed=seed,
                torch_random_seed=seed,
                fewshot_random_seed=seed,
            )
    except OSError as error:
        reason = str(error).split("\n", 1)[0]
        raise UserError(f"--lm-eval: cannot load the data of {', '.join(map(str, tasks))}: {reason}") from None
    if found is None:
        return {}
    results: dict[str, dict[str, Any]] = {**found["results"], **found.get("groups", {})}
    return {f"{_PREFIX}{task}": _scores(numbers, _num_rows(found, task)) for task, numbers in results.items()}


def _num_rows(found: dict[str, Any], task: str) -> int:
    """Number of rows of a task, or of all tasks of a group."""
    if size := found["n-samples"].get(task):
        return int(size["effective"])
    return sum(_num_rows(found, one) for one in found.get("group_subtasks", {}).get(task, ()) if one != task)


def _scores(numbers: dict[str, Any], rows: int) -> dict[str, Score]:
    """`acc,none` and `acc_stderr,none` as one score `acc`; `exact_match,strict` as `exact_match_strict`."""
    scores = {}
    for key, value in numbers.items():
        metric, comma, kind = key.partition(",")
        if not comma or metric.endswith("_stderr") or not isinstance(value, int | float):
            continue
        error = numbers.get(f"{metric}_stderr,{kind}")
        width = _NORMAL * error if isinstance(error, int | float) else None
        scores[metric if kind == "none" else f"{metric}_{kind}"] = Score(
            value=float(value),
            low=None if width is None else value - width,
            high=None if width is None else value + width,
            n=int(numbers.get("sample_len", rows)),
            reference="as lm-eval scores it",
        )
    return scores
