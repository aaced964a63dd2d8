"""The pages: links lead somewhere, and what a page lists is what there is."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from expunge.core import plugins
from expunge.core.schema import SLOTS

REPOSITORY = Path(__file__).parents[1]
PAGES = sorted([*REPOSITORY.glob("*.md"), *REPOSITORY.glob("docs/*.md")])


def _anchors(page: Path) -> set[str]:
    """Names of a page's headings, as they are linked to."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_between_pages_lead_somewhere(page: Path) -> None:
    text = re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    for link in re.findall(r"\]\(([^)\s]+)\)", text):
        if not link.startswith("http"):
            name, _, anchor = link.partition("#")
            target = (page.parent / name).resolve() if name else page
            assert target.is_file(), link
            assert not anchor or anchor in _anchors(target), link


def test_the_methods_page_names_every_choice_and_recipe() -> None:
    page = (REPOSITORY / "docs" / "methods.md").read_text(encoding="utf-8")
    recipes = [path.stem for path in (plugins.ROOT / "recipes").glob("[!_]*.toml")]
    named = [name for name in recipes if not name.endswith("_official")]
    missing = [
        name for name in [*named, *(name for slot in SLOTS for name in plugins.names(slot))] if f"`{name}`" not in page
    ]
    assert not missing
    assert f"[{len(recipes)} recipes]" in (REPOSITORY / "README.md").read_text(encoding="utf-8")


def test_the_attacks_page_names_every_attack() -> None:
    page = (REPOSITORY / "docs" / "attacks.md").read_text(encoding="utf-8")
    assert not [name for name in plugins.names("attacks") if f"`{name}`" not in page]
