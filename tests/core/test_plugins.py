"""The file name is the registry."""

from __future__ import annotations

import pytest

from expunge.attacks.base import Attack
from expunge.core import plugins
from expunge.core.errors import UserError, near
from expunge.core.permission import granted
from expunge.forget.base import ForgetLoss

FOLDERS = ("forget", "retain", "combine", "localize", "evaluate/metrics", "data/sources")


@pytest.mark.parametrize("folder", FOLDERS)
def test_listing_tells_what_each_file_is(folder: str) -> None:
    listed = plugins.listing(folder)
    assert [item.name for item in listed] == plugins.names(folder)
    assert listed
    for item in listed:
        assert len(item.summary) > 20, item
        assert "(arXiv" not in item.summary, "the paper has a column of its own"
        assert item.summary == item.summary.strip()
        assert not item.paper or item.paper.startswith("arXiv:")


def test_paper_is_taken_out_of_the_summary() -> None:
    listed = {item.name: item for item in plugins.listing("forget")}
    assert listed["npo"].paper == "arXiv:2404.05868"
    assert listed["npo"].summary.startswith("NPO: ")
    assert listed["npo"].summary.endswith(".")
    assert " ." not in listed["npo"].summary


def test_base_and_private_files_are_no_plugins() -> None:
    for folder in FOLDERS:
        assert not {"base", "__init__", "_files"} & set(plugins.names(folder))
    for name in ("base", "_files", "../forget/npo", ""):
        with pytest.raises(UserError):
            plugins.find("forget", name, ForgetLoss)


@pytest.mark.parametrize("key", ["access", "default", "rank", "harms", "tries", "needs_original", "needs_retrained"])
def test_class_attributes_are_read_without_an_import(key: str) -> None:
    """Every declaration of every attack, own or inherited, equals that of the imported class."""
    for name in plugins.names("attacks"):
        assert plugins.attribute("attacks", name, key) == getattr(plugins.find("attacks", name, Attack), key)  # type: ignore[type-abstract]


def test_attributes_that_nobody_declares() -> None:
    assert plugins.attribute("attacks", "gcg", "colour") is None
    assert plugins.attribute("attacks", "no_such_attack", "access") is None
    assert plugins.attribute("attacks", "my.module:Attack", "access") is None


def test_unknown_name_offers_the_near_ones() -> None:
    with pytest.raises(UserError, match=r"forget: no 'simpno'; did you mean simnpo\?"):
        plugins.find("forget", "simpno", ForgetLoss)


def test_near() -> None:
    """Nearest names when there are any; all of a short list otherwise; nothing of a long one."""
    assert near("beat", ["beta", "alpha"]) == "; did you mean beta?"
    assert near("zzz", ["beta", "alpha", "beta"]) == "; known: alpha, beta"
    assert near("zzz", [f"name{number}" for number in range(31)]) == ""
    assert near("zzz", []) == ""


@pytest.mark.parametrize(
    "path", ["os:path", "os:nothing", "no_such_module_here:X", ":X", "os:", ".os:X", "json:JSONDecoder"]
)
def test_dotted_paths_that_lead_nowhere(path: str) -> None:
    with granted(classes=[path]), pytest.raises(UserError, match=r"^forget: "):
        plugins.find("forget", path, ForgetLoss)
