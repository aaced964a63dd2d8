"""Permissions of files: they can request only what the current command line or the Python caller's arguments allow.

Run files, suites, records and checkpoints may come from anybody. Three things that they can name are dangerous: code
(a class `module:Class`, `trust_remote_code`), network endpoints that receive rows, and environment variables that are
sent there. Each is checked where it would take effect (`check_*`), against the input passed to `granted`. Readers of
files call `note`, so that a refusal can name the file and the key.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from expunge.core.errors import UserError

CLASS = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_][\w.]*")
"""A dotted path to a class."""
KEY_VARIABLE = re.compile(r"\w+_API_(KEY|TOKEN)")
"""Names of environment variables that a file may have sent to an allowed endpoint; any other must be typed."""
_FLAG = "if you trust that file, add --trust (Python: trust=True)"


@dataclass
class Permissions:
    """Permissions of the current command or call."""

    everything: bool = False
    """`--trust`: whatever the named files ask for is allowed, and listed."""
    remote_code: bool = False
    classes: frozenset[str] = frozenset()
    """Dotted paths that were typed."""
    hosts: frozenset[str] = frozenset()
    """Hosts (`host` or `host:port`) that may receive rows."""
    variables: frozenset[str] = frozenset()
    """Environment variables that were typed."""
    loggers: frozenset[str] = frozenset()
    """Logging services that were typed."""
    tell: Callable[[str], None] = lambda _: None
    """Shows the user one line."""
    files: dict[str, Callable[[], Mapping[str, Any]]] = field(default_factory=dict)
    """Path -> contents of the files that were read, for messages."""
    shown: set[str] = field(default_factory=set)
    """Lines that were shown."""


_current: ContextVar[Permissions] = ContextVar("permissions", default=Permissions())  # noqa: B039 - notes are shared


@contextmanager
def granted(
    *typed: Mapping[str, Any],
    classes: Iterable[str] = (),
    endpoints: Iterable[str] = (),
    everything: bool = False,
    tell: Callable[[str], None] | None = None,
) -> Iterator[Permissions]:
    """Allow, while the block runs, what the user typed, besides what is allowed already.

    Args:
        typed: tables of options; what they name anywhere but under `data` is allowed.
        classes: plug-in names; those that are dotted paths are allowed.
        endpoints: hosts, `host` or `host:port`.
        everything: allow what files ask for too.
        tell: shows the user one line.

    Raises:
        UserError: an endpoint that is no host.
    """
    outer = _current.get()
    entries = [one for tables in typed for one in _walk({key: tables[key] for key in tables if key != "data"})]
    named = {str(value) for _, _, value in entries} | {key for _, key, _ in entries} | set(classes)
    urls = [value for _, key, value in entries if key == "endpoint" and isinstance(value, str)]
    current = Permissions(
        everything=everything or outer.everything,
        remote_code=outer.remote_code or any(key == "trust_remote_code" and value is True for _, key, value in entries),
        classes=outer.classes | {name for name in named if CLASS.fullmatch(name)},
        hosts=outer.hosts | {_host(one) for one in endpoints} | {_address(url) for url in urls},
        variables=outer.variables | {str(value) for _, key, value in entries if key == "key_variable"},
        loggers=outer.loggers | {str(value) for path, _, value in entries if "report_to" in path.split(".")},
        tell=tell or outer.tell,
        files=dict(outer.files),
    )
    token = _current.set(current)
    try:
        yield current
    finally:
        _current.reset(token)


def note(path: Path, contents: Callable[[], Mapping[str, Any]]) -> None:
    """Remember a file that was read, so that a refusal can name the file and the key."""
    _current.get().files[str(path)] = contents


def tell(text: str) -> None:
    """Show the user one line, even where progress is silent."""
    _current.get().tell(text)


def check_class(what: str, name: str) -> None:
    """Refuse to import a class that only a file names.

    Args:
        what: kind of plug-in, e.g. `forget`.
        name: dotted path.

    Raises:
        UserError: nobody typed it, and files are not trusted.
    """
    current = _current.get()
    if name not in current.classes:
        _require(
            current,
            f"the class '{name}', whose module would be run",
            lambda key, value: name in (key, value),
            what,
            _FLAG,
        )


def check_remote_code(what: str = "model.trust_remote_code") -> None:
    """Refuse to run Python code that comes with a model if only a file requests it.

    Raises:
        UserError: nobody typed it, and files are not trusted.
    """
    current = _current.get()
    if not current.remote_code:
        request = "trust_remote_code = true, which runs Python code that comes with the model"
        _require(current, request, lambda key, value: key == "trust_remote_code" and value is True, what, _FLAG)


def check_logger(what: str, name: str) -> None:
    """Refuse a logging service over the network that only a file names.

    Raises:
        UserError: nobody typed it, and files are not trusted.
    """
    current = _current.get()
    if name not in current.loggers:
        _require(current, f"the logging service '{name}'", lambda _, value: value == name, what, _FLAG)


def check_endpoint(what: str, url: str, variable: str) -> None:
    """Refuse to send rows, or an environment variable, if only a file requests it.

    Args:
        what: dotted path of the option that names the endpoint.
        url: the endpoint, a valid web address.
        variable: environment variable that holds its key.

    Raises:
        UserError: nobody typed the endpoint or allowed its host; or the variable is set, was not typed, and its name
            is not that of an API key.
    """
    current = _current.get()
    address = _address(url)
    if not {address, address.rpartition(":")[0]} & current.hosts:
        flag = f"if it may receive questions and answers of your rows, add --allow-endpoint {address}"
        _require(current, f"the endpoint {address}", lambda key, value: key == "endpoint" and value == url, what, flag)
    if os.environ.get(variable) and variable not in current.variables and not KEY_VARIABLE.fullmatch(variable):
        place = _place(current, lambda key, value: key == "key_variable" and value == variable)
        raise UserError(
            f"{what}: {place}the environment variable {variable} to be sent to {address}; from a file only names that "
            "end in _API_KEY or _API_TOKEN are accepted, any other must be given with --set"
        )


def _require(current: Permissions, request: str, found: Callable[[str, Any], bool], what: str, flag: str) -> None:
    place = _place(current, found)
    if not current.everything:
        raise UserError(f"{what}: {place}{request}; the command line does not name it; {flag}")
    text = f"--trust: {what}: {place}{request}"
    if text not in current.shown:
        current.shown.add(text)
        current.tell(text)


def _place(current: Permissions, found: Callable[[str, Any], bool]) -> str:
    """The file and key that request it, in words."""
    for file, contents in reversed(current.files.items()):
        for path, key, value in _walk(contents()):
            if found(key, value):
                return f"{file} ({path}) asks for "
    return "a file asks for "


def _walk(value: Any, path: str = "", key: str = "") -> Iterator[tuple[str, str, Any]]:
    """Dotted path, last key and value of everything in tables; a place in a list is a key too."""
    if isinstance(value, Mapping):
        inner: Iterable[tuple[str, str, Any]] = ((str(name), str(name), item) for name, item in value.items())
    elif isinstance(value, list | tuple | set | frozenset):
        inner = ((str(place), key, item) for place, item in enumerate(value))
    else:
        yield path, key, value
        return
    if isinstance(value, Mapping) and path:
        yield path, key, None
    for name, inner_key, item in inner:
        yield from _walk(item, f"{path}.{name}".lstrip("."), inner_key)


def _address(url: str) -> str:
    """`host:port` of a web address."""
    try:
        parts = urlsplit(url)
        return f"{parts.hostname or ''}:{parts.port or (80 if parts.scheme == 'http' else 443)}"
    except ValueError:
        return ""


def _host(text: str) -> str:
    """A host as typed, with or without a port.

    Raises:
        UserError: it is none, e.g. a whole URL.
    """
    try:
        parts = urlsplit(f"//{text}")
        host, port = parts.hostname, parts.port
    except ValueError:
        host, port = None, None
    if not host or "/" in text or "@" in text or "?" in text or "#" in text:
        raise UserError(f"--allow-endpoint {text}: expected HOST or HOST:PORT, e.g. api.example.org")
    return host if port is None else f"{host}:{port}"
