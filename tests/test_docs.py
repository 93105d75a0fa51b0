"""The documentation does what it says: examples run, README's commands work in order, made pages are up to
date, links lead somewhere.
"""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
README = ROOT / "README.md"
PAGES = [*sorted(DOCS.glob("*.md")), *sorted(ROOT.glob("*.md"))]
#: pages that need no example: made ones, tables, texts about the project
TABLES = {
    "api.md",
    "architecture.md",
    "bench.md",
    "cli.md",
    "precision.md",
    "server.md",
    "small-computers.md",
    "speed.md",
}
#: README's blocks behind this comment are not run
NETWORK = "<!-- needs a network -->"
_BLOCK = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_SHELL = re.compile(r"(?P<before>[^\n]*)\n```sh\n(?P<code>.*?)^```$", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"\]\(([^)#:\s]+)(?:#[^)]*)?\)")


def blocks(page):
    """(line number, code) of the page's Python examples."""
    text = page.read_text("utf-8")
    return [(text[: found.start(1)].count("\n"), found[1]) for found in _BLOCK.finditer(text)]


def commands(page):
    """(the line before, code) of the page's shell examples."""
    return [(found["before"].strip(), found["code"]) for found in _SHELL.finditer(page.read_text("utf-8"))]


@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page)], ids=lambda page: page.name)
def test_the_examples_of_a_page_run_one_after_another(page, tmp_path, monkeypatch, capsys, embedded):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    names = {"__name__": "example"}
    for line, code in blocks(page):
        exec(compile("\n" * line + code, str(page), "exec"), names)
    kept = [file.name for file in (tmp_path / "cache").rglob("*") if file.is_file()]
    programs = (".nbi", ".nbc", ".lock")
    assert all(name.endswith(programs) for name in kept), (
        f"an example wrote {kept} to the user's cache folder without being asked to"
    )


def test_readme_leads_from_a_clone_to_a_text_in_one_shell(tmp_path):
    """All blocks, typed one after another into one shell in a new folder.

    Only making the environment and pip are played.
    """
    clone = tmp_path / "clone"
    clone.mkdir()
    (clone / "weights").symlink_to(ROOT / "weights")
    script = "".join(
        f"echo '{_mark(code)}'\n{code}" for before, code in commands(README) if before != NETWORK
    )
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script],
        cwd=clone,
        env={
            **os.environ,
            "PATH": f"{_players(tmp_path)}:/usr/bin:/bin",
            "XDG_DATA_HOME": str(tmp_path / "data"),
        },
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert "Once upon a time" in done.stdout
    installed = (tmp_path / "installed").read_text().splitlines()
    assert installed[0].endswith(" ."), "the first thing that is installed is the engine itself"


def _mark(code):
    return "# " + code.splitlines()[0].replace("'", "")


def _players(folder):
    """A folder with a `python3` that makes an environment of the interpreter that runs this, whose pip only
    writes down what it is told; outside of the environment pip refuses, as on Debian, and there is no rwkv.
    """
    bin, inside, log = folder / "bin", folder / "inside", folder / "installed"
    bin.mkdir()
    inside.mkdir()
    python = shlex.quote(sys.executable)
    _program(bin / "pip", 'echo "pip: externally managed environment" >&2; exit 1')
    _program(
        bin / "python3",
        f'[ "$1 $2" = "-m venv" ] || exec {python} "$@"',
        f'mkdir -p "$3"; rm -rf "$3/bin"; cp -r {shlex.quote(str(inside))} "$3/bin"',
        'echo "export PATH=$(realpath "$3/bin"):\\$PATH" > "$3/bin/activate"',
    )
    _program(inside / "pip", f'echo "$*" >> {shlex.quote(str(log))}')
    _program(inside / "python", f'case "$*" in "-m pytest"*) ;; *) exec {python} "$@";; esac')
    _program(inside / "rwkv", f'exec {python} -m rwkv_engine_cli.app "$@"')
    return bin


def _program(path, *lines):
    path.write_text("\n".join(["#!/bin/sh", *lines, ""]))
    path.chmod(0o755)


def test_readme_has_at_most_130_lines_and_comes_to_the_point_in_order():
    text = README.read_text("utf-8")
    assert len(text.splitlines()) <= 130
    headings = re.findall(r"^## (.*)$", text, re.MULTILINE)
    wanted = ["Install", "Generate", "Pull and chat", "Six lines of Python", "What is read", "Links"]
    assert headings[: len(wanted)] == wanted
    assert text.index("![") < text.index("## Install")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_on_a_page_are_verbs_and_options_that_exist(page):
    sys.path.insert(0, str(DOCS))
    try:
        from make_cli import all_verbs, names
    finally:
        sys.path.remove(str(DOCS))
    known = {
        one.name: {name.split()[0] for option in one.options for name in names(option)} | {"--help"}
        for one in all_verbs()
    }
    for _, code in commands(page):
        for line in re.findall(r"(?:^|\| |&& )(rwkv .*)", code.replace("\\\n", ""), re.MULTILINE):
            words = [word for word in shlex.split(line, comments=True)]
            words = words[
                : min(words.index(sign) if sign in words else len(words) for sign in ("|", ">", "&&"))
            ]
            verb = max((name for name in known if words[: name.count(" ") + 1] == name.split()), key=len)
            given = {word for word in words if re.fullmatch(r"-[a-z]|--[a-z-]+", word)}
            assert given <= known[verb], f"{line!r}: {verb} has no {given - known[verb]}"
            assert verb != "rwkv" or len(words) == 1 or words[1].startswith("-"), f"{line!r}: no such verb"


@pytest.mark.parametrize("surroundings", [{"COLUMNS": "20", "LC_ALL": "C"}, {"COLUMNS": "200"}])
def test_pages_made_from_the_program_are_up_to_date_whatever_the_terminal(surroundings):
    done = subprocess.run(
        [sys.executable, DOCS / "make.py", "--check"],
        env={**os.environ, **surroundings},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_page_has_examples_and_is_listed():
    pages = {page.name for page in DOCS.glob("*.md")} - {"README.md"}
    listed = set(_LINK.findall((DOCS / "README.md").read_text("utf-8")))
    assert pages == {link for link in listed if "/" not in link} and len(pages) >= 7
    assert all(blocks(DOCS / name) for name in pages - TABLES)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_to_files_lead_somewhere(page):
    for link in _LINK.findall(page.read_text("utf-8")):
        assert (page.parent / link).exists(), link


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_to_headings_lead_somewhere(page):
    for target, heading in re.findall(r"\]\(([^)#:\s]*)#([^)\s]+)\)", page.read_text("utf-8")):
        headings = re.findall(
            r"^#+ (.*)$", (page.parent / target if target else page).read_text("utf-8"), re.MULTILINE
        )
        assert heading in {anchor(text) for text in headings}, f"{target}#{heading}"


def anchor(heading):
    """A heading's name in links, as GitHub makes it."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")
