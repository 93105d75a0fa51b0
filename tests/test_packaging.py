"""What is published holds all it needs: a folder that is new cannot be forgotten."""

import importlib.metadata
import sys
from pathlib import Path

import pytest

import rwkv_engine

ROOT = Path(__file__).resolve().parents[1]
if sys.version_info >= (3, 11):
    import tomllib
else:
    tomllib = pytest.importorskip("tomli")


@pytest.fixture(scope="module")
def setuptools_table():
    return tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["setuptools"]


def test_every_folder_with_code_is_a_package_that_is_installed(setuptools_table):
    folders = {"rwkv_engine": "rwkv_engine", **setuptools_table["package-dir"]}
    found = {
        ".".join([name, *file.parent.relative_to(ROOT / folder).parts])
        for name, folder in folders.items()
        for file in (ROOT / folder).rglob("__init__.py")
    }
    assert found == set(setuptools_table["packages"])


def test_every_file_of_the_web_page_is_installed(setuptools_table):
    folder = ROOT / "rwkv_engine" / "serve"
    installed = {
        file
        for pattern in setuptools_table["package-data"]["rwkv_engine.serve"]
        for file in folder.glob(pattern)
    }
    assert installed == set((folder / "page").iterdir()) and installed


def test_the_sdist_has_the_tests_and_what_they_read():
    grafted = {line.split()[1] for line in (ROOT / "MANIFEST.in").read_text().splitlines() if "graft" in line}
    assert {"tests", "docs", "benchmarks"} <= grafted
    included = (ROOT / "MANIFEST.in").read_text()
    assert all(page.name in included for page in ROOT.glob("*.md") if page.name != "README.md")


def test_the_version_stands_in_one_place():
    assert "version =" not in (ROOT / "pyproject.toml").read_text("utf-8").partition("[tool.")[0]
    assert importlib.metadata.version("rwkv-engine") == rwkv_engine.__version__
