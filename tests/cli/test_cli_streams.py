"""Any terminal, pipe or encoding: the output arrives, the exit code is right, a failure is one line."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

import pytest

from expunge.cli.main import app


def started(shell: str) -> subprocess.CompletedProcess[bytes]:
    """A shell pipeline in which `$EXPUNGE` is the command."""
    own = {**os.environ, "EXPUNGE": f"{sys.executable} -m expunge"}
    return subprocess.run(["bash", "-c", shell], capture_output=True, env=own, timeout=60)


@pytest.mark.parametrize("encoding", ["ascii", "cp1252"])
def test_streams_that_know_few_characters(encoding: str) -> None:
    """A table, JSON that stays JSON, and a message that quotes a Japanese name."""
    script = (
        "import sys, io\n"
        "from expunge.cli.main import main\n"
        "from expunge.cli._console import print_json\n"
        "for arguments in (['list', 'metrics'], ['list', 'metrics', '--json'], [sys.argv[1]]):\n"
        "    sys.argv = ['expunge', *arguments]\n"
        "    try:\n"
        "        main()\n"
        "    except SystemExit as stop:\n"
        "        assert stop.code == 2\n"
        "    print('====')\n"
        "print_json({'name': '東京 é'})\n"
    )
    found = subprocess.run(
        [sys.executable, "-c", script, "東京"],
        capture_output=True,
        env={**os.environ, "PYTHONIOENCODING": encoding},
        timeout=60,
    )
    assert found.returncode == 0, found.stderr
    table, listing, _, told = found.stdout.decode(encoding).split("====")
    assert "keyword_recall" in table
    assert json.loads(listing)
    assert json.loads(told) == {"name": "東京 é"}
    assert found.stderr.decode(encoding).splitlines() == [
        "expunge: no such command '\\u6771\\u4eac'; see expunge --help"
    ]


def test_pipes_that_close_and_devices_that_are_full() -> None:
    """`| head` ends in silence, with the code of SIGPIPE; a closed or full standard output is no traceback."""
    piped = started(
        shell="$EXPUNGE list metrics | true; echo ${PIPESTATUS[0]}; $EXPUNGE list metrics --json | true; echo ok"
    )
    assert piped.stdout.split()[-1] == b"ok"
    assert piped.stdout.split()[0] == b"141"
    assert b"Traceback" not in piped.stderr
    assert b"Exception" not in piped.stderr
    closed = started("$EXPUNGE list metrics >&-; echo $?; $EXPUNGE nope 2>&-; echo $?")
    assert closed.stdout.split() == [b"0", b"2"]
    assert not closed.stderr
    if os.path.exists("/dev/full"):
        full = started("$EXPUNGE list metrics >/dev/full; echo $? >&2")
        assert full.stderr.decode().splitlines() == ["expunge: standard output: No space left on device", "1"]


@pytest.mark.parametrize("hostile", ["\x1b[31mred\x1b[0m", "a\nb\r\nc", "evil\u202etxt", "[bold]x[/nope]", "x\x9b2J"])
def test_a_hostile_name_is_shown_and_not_obeyed(expunge: Any, hostile: str) -> None:
    """In options, commands, files and models; each message is one line."""
    for arguments in (
        ["eval", hostile, "--data", "forget=nowhere.jsonl"],
        ["teach", f"{hostile}.toml"],
        ["show", "recipe", hostile],
        ["run", f"--{hostile}"],
        [hostile],
        ["run", "--set", hostile],
        ["report", hostile],
        ["compare", hostile, "b"],
    ):
        outcome = expunge(*arguments)
        assert outcome.code == 2, arguments
        assert outcome.out == ""
        assert outcome.err.count("\n") == 1, outcome.err
        assert outcome.err.rstrip("\n").isprintable(), outcome.err


def test_a_bug_is_one_line_that_says_where_it_is(expunge: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """And its whole traceback where the user asks for it."""

    def broken(folder: str) -> None:
        raise KeyError("a\nb")

    monkeypatch.setattr("expunge.core.plugins.listing", broken)
    outcome = expunge("list", "metrics")
    assert (outcome.code, outcome.out) == (1, "")
    assert outcome.err.startswith("expunge: internal error: KeyError: 'a\\nb' (cli/listing.py:")
    assert "EXPUNGE_TRACEBACK=1" in outcome.err
    assert outcome.err.count("\n") == 1
    monkeypatch.setenv("EXPUNGE_TRACEBACK", "1")
    assert "Traceback (most recent call last)" in expunge("list", "metrics").err


def test_an_interrupted_command_says_so(expunge: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(folder: str) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("expunge.core.plugins.listing", interrupted)
    outcome = expunge("list", "metrics")
    assert (outcome.code, outcome.out, outcome.err.count("\n")) == (130, "", 1)


def test_help_shows_every_text_as_it_is_written(expunge: Any) -> None:
    """Docstrings and option texts of all commands, with their brackets."""
    import typer.main

    def shown_parameters(command: Any) -> list[Any]:
        return [one for one in command.params if not getattr(one, "hidden", False)]

    def walk(command: Any, path: tuple[str, ...]) -> None:
        shown = " ".join(expunge(*path, "--help").out.split())
        texts = [command.help or "", *(getattr(option, "help", None) or "" for option in shown_parameters(command))]
        for text in texts:
            assert " ".join(text.split()) in shown, (path, text)
        for name, inner in getattr(command, "commands", {}).items():
            walk(inner, (*path, name))

    walk(typer.main.get_command(app), ())
    assert "TOML file: [model], [data] teach = [...], [train]." in " ".join(expunge("teach", "--help").out.split())
    assert "'expunge[lm-eval]'" in expunge("eval", "--help").out
