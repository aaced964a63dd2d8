"""Language models that rate texts: behind any OpenAI-compatible endpoint, or loaded locally.

A valid reply is one JSON object `{"score": NUMBER}` and nothing else; a reply of another form is requested again, never
interpreted. Texts are sent only to endpoints that the user typed or allowed (`core.permission`).
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from ipaddress import ip_address
from typing import Any
from urllib.parse import urlsplit

import requests
import torch
from pydantic import Field
from requests.adapters import HTTPAdapter
from urllib3.exceptions import HTTPError
from urllib3.response import BaseHTTPResponse
from urllib3.util import Retry

from expunge.core.errors import UserError
from expunge.core.permission import check_endpoint, tell
from expunge.core.records import Frozen
from expunge.data.example import Example
from expunge.evaluate.local_scorers import Unavailable
from expunge.models.base import LanguageModel
from expunge.models.batches import in_batches
from expunge.models.config import ModelConfig
from expunge.models.generate import decode
from expunge.models.load import helper_device, load_model
from expunge.models.model_name import check_model_name
from expunge.models.prefix import encode_prompts

HIGHEST = 5.0
"""Ratings range from 0 to this."""
_REMINDER = (
    '\n\nThe last reply was not of the form that was asked for. Reply with {"score": NUMBER} alone, from 0 to 5.'
)
_BUSY = (408, 409, 429, 500, 502, 503, 504)
"""Statuses after which a request is repeated."""
_LONGEST_WAIT = 60.0
"""Seconds that are waited if an endpoint's Retry-After asks for more."""
_LARGEST_REPLY = 4_000_000
"""Bytes of an endpoint's reply that are read."""


class JudgeConfig(Frozen):
    """One language model that rates."""

    model: str = Field(description="Name at the endpoint; without one, an embedded name, folder or hub id to load here")
    endpoint: str | None = Field(
        None,
        description="Base URL of an OpenAI-compatible service, e.g. https://host/v1; the rated texts are sent there",
    )
    key_variable: str = Field(
        "OPENAI_API_KEY", description="Environment variable that holds the endpoint's key; none is sent if it is unset"
    )
    max_tokens: int = Field(256, ge=8, description="Longest reply; a model that reasons first needs more")
    attempts: int = Field(3, ge=1, description="Attempts to get a reply, and to get one of the right form")
    parallel: int = Field(4, ge=1, description="Simultaneous requests to an endpoint")
    timeout: float = Field(60.0, gt=0, description="Seconds that a request may take")
    pause: float = Field(1.0, ge=0, description="Seconds before a request is repeated; doubled each time")


class LLMJudge:
    """Rates texts with one model, at temperature 0.

    Args:
        config: which model, and where.
        option: dotted path of the option that names it.

    Raises:
        UserError: no such model, or an address that cannot be used.
    """

    def __init__(self, config: JudgeConfig, option: str) -> None:
        self._config = config
        self._option = option
        if config.endpoint is None:
            check_model_name(config.model, f"{option}.model")
            self.name = config.model
        else:
            self.name = f"{config.model} at {_host(config, f'{option}.endpoint')}"
            check_endpoint(f"{option}.endpoint", config.endpoint, config.key_variable)

    @property
    def is_remote(self) -> bool:
        """Whether texts are sent over a network."""
        return self._config.endpoint is not None

    def rate(self, prompts: Sequence[str]) -> list[float | str]:
        """For each prompt a number in [0, 5], or the reason for its absence."""
        found: list[float | str] = ["not asked"] * len(prompts)
        unrated = list(range(len(prompts)))
        for attempt in range(self._config.attempts):
            repeated = [prompts[place] + (_REMINDER if attempt else "") for place in unrated]
            try:
                replies = self._replies(repeated)
            except Unavailable as error:
                return [value if isinstance(value, float) else str(error) for value in found]
            for place, reply in zip(unrated, replies, strict=True):
                score = parse(reply)
                found[place] = f"{self.name} gave no score in {attempt + 1} attempts" if score is None else score
            unrated = [place for place in unrated if isinstance(found[place], str)]
            if not unrated:
                break
        return found

    def _replies(self, prompts: Sequence[str]) -> list[str]:
        if self._config.endpoint is None:
            return _generate(self._local, prompts, self._config.max_tokens, f"{self._option}.model")
        texts = "1 text" if len(prompts) == 1 else f"{len(prompts)} texts"
        key = f", with the key in {self._config.key_variable}" if os.environ.get(self._config.key_variable) else ""
        tell(f"sending {texts} (question and answer of a row each) to {self.name}{key}")
        with ThreadPoolExecutor(self._config.parallel) as pool:
            return list(pool.map(self._post, prompts))

    def _post(self, prompt: str) -> str:
        """The text of one reply.

        Redirects are not followed, since they would take key and texts to another host, and proxies are not used for
        this machine.

        Raises:
            Unavailable: no connection, a refusal, or a busy endpoint at every attempt. Never quotes what was sent.
        """
        config, base = self._config, self._config.endpoint or ""
        body: dict[str, Any] = {
            "model": config.model,
            "messages": [{"role": "user", "content": prompt}],
            "temperature": 0,
            "max_tokens": config.max_tokens,
        }
        retry = _Retry(
            config.attempts - 1,
            allowed_methods=None,
            status_forcelist=_BUSY,
            backoff_factor=config.pause,
            raise_on_status=False,
        )
        try:
            with requests.Session() as session:
                session.trust_env = not _is_local(urlsplit(base).hostname or "")
                session.auth = self._add_key  # also keeps requests from looking for other credentials
                for scheme in ("http://", "https://"):
                    session.mount(scheme, HTTPAdapter(max_retries=retry))
                url, timeout = f"{base.rstrip('/')}/chat/completions", config.timeout
                with session.post(url, json=body, timeout=timeout, allow_redirects=False, stream=True) as reply:
                    if 200 <= reply.status_code < 300:
                        return _content(reply.raw.read(_LARGEST_REPLY, decode_content=True), self.name)
                    reason = f"status {reply.status_code}"
        except (requests.RequestException, HTTPError) as error:
            reason = _cause(error)
        raise Unavailable(f"{self.name} did not answer: {reason}")

    def _add_key(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        if key := os.environ.get(self._config.key_variable):
            request.headers["Authorization"] = f"Bearer {key}"
        return request

    @cached_property
    def _local(self) -> LanguageModel:
        return load_model(ModelConfig(name=self._config.model, device=str(helper_device())))


class _Retry(Retry):
    """Waits before the first repetition too, and for a bounded time."""

    def get_backoff_time(self) -> float:
        return float(self.backoff_factor * 2 ** (len(self.history) - 1))

    def get_retry_after(self, response: BaseHTTPResponse) -> float | None:
        wanted = super().get_retry_after(response)
        return None if wanted is None else min(wanted, _LONGEST_WAIT)


def _cause(error: BaseException) -> str:
    """Type of the innermost error; messages may quote what was sent."""
    while inner := error.__cause__ or error.__context__:
        error = inner
    return type(error).__name__


def parse(reply: str) -> float | None:
    """The number of a reply that is one JSON object `{"score": NUMBER}`, from 0 to 5; None for anything else."""
    try:
        value = json.loads(reply, object_pairs_hook=_unique)
    except (ValueError, RecursionError):
        return None
    if not isinstance(value, dict) or set(value) != {"score"}:
        return None
    score = value["score"]
    if isinstance(score, bool) or not isinstance(score, int | float) or not math.isfinite(score):
        return None
    return float(score) if 0 <= score <= HIGHEST else None


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    if len(dict(pairs)) < len(pairs):
        raise ValueError("a key occurs twice")
    return dict(pairs)


def _content(body: bytes, name: str) -> str:
    try:
        content = json.loads(body)["choices"][0]["message"]["content"]
    except (ValueError, LookupError, TypeError, RecursionError):
        raise Unavailable(f"{name} did not answer as an OpenAI-compatible endpoint does") from None
    return content if isinstance(content, str) else ""


def _host(config: JudgeConfig, option: str) -> str:
    """Host and port of an endpoint, as records show them.

    Raises:
        UserError: not a web address, or a key that would be sent unencrypted.
    """
    try:
        parts = urlsplit(config.endpoint or "")
        host, port = parts.hostname or "", parts.port
    except ValueError:
        parts, host, port = urlsplit(""), "", None
    if parts.scheme not in ("http", "https") or not host or parts.query or parts.fragment:
        raise UserError(f"{option}: expected a base URL such as https://host/v1")
    if parts.username or parts.password:
        raise UserError(
            f"{option}: the URL holds a user or password; put the key into the variable {config.key_variable}"
        )
    if parts.scheme == "http" and not _is_local(host) and os.environ.get(config.key_variable):
        raise UserError(
            f"{option}: the key in {config.key_variable} is sent over https, or to this machine, only; "
            "for a service without a key name another key_variable"
        )
    return host if port is None else f"{host}:{port}"


def _is_local(host: str) -> bool:
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False


def _generate(model: LanguageModel, prompts: Sequence[str], max_tokens: int, option: str) -> list[str]:
    """Greedy replies of a local model.

    Raises:
        UserError: a prompt is longer than the model's context.
    """
    try:
        ids = [model.encoder.answer_prompt(Example("", question=prompt)) for prompt in prompts]
    except UserError as error:
        if "model.max_length" not in str(error):
            raise
        raise UserError(
            f"{option}: a question with its answer exceeds the {model.encoder.max_length} tokens that the judge "
            f"'{model.source}' takes; name a judge with a longer context"
        ) from None
    replies = [""] * len(prompts)
    decoded: Callable[[list[int]], str] = model.encoder.decode

    def work(indices: Sequence[int], _: int) -> None:
        prefix = encode_prompts(model, [ids[index] for index in indices])
        outputs = decode(prefix, max_tokens, model.encoder.stop_ids)
        for index, output in zip(indices, outputs, strict=True):
            replies[index] = decoded(output)

    with model.evaluating(), torch.inference_mode():
        in_batches(model.budget, model.device, "draft", [len(prompt) for prompt in ids], work)
    return replies
