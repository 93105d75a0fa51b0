"""Every Python example of the documentation runs as it stands."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PAGES = [*sorted((ROOT / "docs").glob("*.md")), ROOT / "README.md"]
_BLOCK = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"\]\(([^)#:]+)(?:#[^)]*)?\)")


def blocks(page):
    """(line number, code) of the page's Python examples."""
    text = page.read_text("utf-8")
    return [(text[: found.start(1)].count("\n"), found[1]) for found in _BLOCK.finditer(text)]


@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page)], ids=lambda page: page.name)
def test_the_examples_of_a_page_run_one_after_another(page, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    names = {"__name__": "example"}
    for line, code in blocks(page):
        exec(compile("\n" * line + code, str(page), "exec"), names)
    assert not (tmp_path / "cache").exists(), (
        "an example wrote to the user's cache folder without being asked to"
    )


def test_every_page_has_examples_and_is_listed():
    pages = {page.name for page in (ROOT / "docs").glob("*.md")} - {"README.md"}
    listed = set(_LINK.findall((ROOT / "docs" / "README.md").read_text("utf-8")))
    assert pages == listed and len(pages) >= 7
    assert all(blocks(ROOT / "docs" / name) for name in pages - {"devices.md"})  # which is a table


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_to_files_lead_somewhere(page):
    for link in _LINK.findall(page.read_text("utf-8")):
        assert (page.parent / link).exists(), link
