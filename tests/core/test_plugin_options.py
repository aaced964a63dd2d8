"""Options read from the source of a plug-in are those of the imported class."""

import json
import subprocess
import sys
from importlib import import_module

import pytest

from expunge.core.errors import UserError
from expunge.core.plugin_options import described, options_class
from expunge.core.plugins import names

FOLDERS = (
    "forget",
    "retain",
    "combine",
    "localize",
    "edit",
    "optimizers",
    "evaluate/metrics",
    "evaluate/set_metrics",
    "attacks",
    "diagnose",
)
PROGRAM = f"""
import json, sys
from expunge.core.plugin_options import described
from expunge.core.plugins import names

found = {{}}
for folder in {FOLDERS!r}:
    for name in names(folder):
        summary, options = described(folder, name)
        found[f"{{folder}}/{{name}}"] = [summary, options.model_json_schema(), options().model_dump(mode="json")]
assert not {{"torch", "transformers"}} & set(sys.modules)
print(json.dumps(found))
"""


def test_options_and_summary_equal_those_of_the_imported_class() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    read = json.loads(done.stdout)
    assert len(read) == sum(len(names(folder)) for folder in FOLDERS)
    for place, (summary, schema, defaults) in read.items():
        module = import_module(f"expunge.{place.replace('/', '.')}")
        kinds = [
            kind
            for kind in vars(module).values()
            if hasattr(kind, "Config") and kind.__module__ == module.__name__ and not kind.__name__.startswith("_")
        ]
        assert len(kinds) == 1, place
        assert summary == (kinds[0].__doc__ or "").split("\n", 1)[0], place
        assert schema == kinds[0].Config.model_json_schema(), place
        assert defaults == kinds[0].Config().model_dump(mode="json"), place


def test_a_validator_refuses_what_it_refuses_in_the_imported_class() -> None:
    program = (
        "import sys\n"
        "from expunge.core.plugin_options import options_class\n"
        "try:\n"
        "    options_class('forget', 'belief_sequence')(samples=4, candidates=2)\n"
        "except ValueError as error:\n"
        "    assert 'at least samples (4)' in str(error), error\n"
        "else:\n"
        "    raise AssertionError('accepted')\n"
        "assert 'torch' not in sys.modules\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_an_unknown_plugin_is_refused_with_the_nearest_name() -> None:
    with pytest.raises(UserError, match=r"forget: no 'nop'.*npo"):
        options_class("forget", "nop")


def test_a_class_of_the_user_is_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    from expunge.core.permission import granted

    with granted(classes=["expunge.forget.npo:NPO"]):
        summary, options = described("forget", "expunge.forget.npo:NPO")
    assert options is import_module("expunge.forget.npo").NPO.Config
    assert summary
