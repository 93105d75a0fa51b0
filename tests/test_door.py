"""The door: one list of public names, which Python, type checkers and editors see alike."""

import ast
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

import rwkv_engine

ROOT = Path(__file__).resolve().parents[1]
PROGRAM = ROOT / "tests" / "typed" / "program.py"
#: in the program: what is right, and the mistake put in its place
MISTAKES = (
    ("import numpy.typing as npt", "import numpy.typing as npt\nfrom rwkv_engine import Modle"),
    ("Sampling(temperature=0.7, top_k=40", "Sampling(temprature=0.7, top_k=40"),
    ("row: Row = model.feed", "row: npt.NDArray[np.int64] = model.feed"),
    ("error.got, error.wanted", "error.got, error.wonted"),
    ("steps.close()", "steps.shut()"),
)


def checker_lists():
    """name -> module, as type checkers read it from the door's source."""
    tree = ast.parse((ROOT / "rwkv_engine" / "__init__.py").read_text())
    (block,) = (n for n in tree.body if isinstance(n, ast.If) and ast.unparse(n.test) == "TYPE_CHECKING")
    found = {}
    for node in block.body:
        for alias in node.names:
            assert alias.asname == alias.name, "without `as`, a strict checker takes it for private"
            found[alias.name] = node.module.removeprefix("rwkv_engine.")
    return found


def test_there_is_one_list_of_public_names():
    assert checker_lists() == rwkv_engine._NAMES
    assert rwkv_engine.__all__ == sorted(rwkv_engine._NAMES) == dir(rwkv_engine)
    assert {"Batch", "Part", "Template", "Turn", "describe"} <= set(rwkv_engine.__all__)


def test_every_public_name_is_there_and_lies_where_the_list_says():
    for name in rwkv_engine.__all__:
        thing = getattr(rwkv_engine, name)
        assert thing.__module__ == f"rwkv_engine.{rwkv_engine._NAMES[name]}" and thing.__doc__, name
    with pytest.raises(AttributeError, match="no attribute 'Modle'"):
        rwkv_engine.Modle  # noqa: B018


def test_importing_the_door_is_quick_and_imports_no_numpy():
    program = (
        "import sys, time; s = time.perf_counter(); import rwkv_engine; t = time.perf_counter() - s\n"
        "assert 'numpy' not in sys.modules; print(t)"
    )
    run = [sys.executable, "-c", program]
    best = min(float(subprocess.run(run, capture_output=True, check=True).stdout) for _ in range(5))
    assert best < 0.010, f"{best * 1000:.1f} ms"


def test_the_version_stands_in_one_place():
    from importlib.metadata import version

    assert version("rwkv-engine") == rwkv_engine.__version__
    assert not re.search(r'^version = "', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)


def errors_of(checker, program, folder):
    """Lines in which the checker finds something wrong."""
    path = folder / "program.py"
    path.write_text(program)
    if checker == "mypy":
        command = [
            "mypy",
            "--strict",
            "--follow-imports=silent",
            "--config-file=",
            f"--cache-dir={folder / 'cache'}",
            str(path),
        ]
    else:
        (folder / "pyrightconfig.json").write_text(f'{{"extraPaths": ["{ROOT}"], "include": ["program.py"]}}')
        command = ["pyright", "-p", str(folder)]
    done = subprocess.run(
        [sys.executable, "-m", *command],
        cwd=folder,
        env={"MYPYPATH": str(ROOT), "PATH": __import__("os").environ["PATH"], "HOME": str(folder)},
        capture_output=True,
        text=True,
        timeout=300,
    )
    found = [line for line in done.stdout.splitlines() if "program.py:" in line and "error" in line]
    assert done.returncode == bool(found), done.stdout + done.stderr
    return found


@pytest.mark.slow_but("mypy")
@pytest.mark.parametrize("checker", ["mypy", "pyright"])
def test_a_users_program_is_clean_and_each_mistake_in_it_is_found(checker, tmp_path):
    if find_spec(checker) is None:
        pytest.skip(f"{checker} is not installed")
    program = PROGRAM.read_text()
    assert errors_of(checker, program, tmp_path) == []
    for right, wrong in MISTAKES:
        assert program.count(right) == 1, right
        program = program.replace(right, wrong)
    found = errors_of(checker, program, tmp_path)
    lines = {
        number
        for number, line in enumerate(program.splitlines(), 1)
        if any(wrong.splitlines()[-1] in line for _, wrong in MISTAKES)
    }
    assert len(lines) == 5
    assert {int(re.search(r"program\.py:(\d+)", line)[1]) for line in found} == lines, found


def test_the_program_names_everything_that_is_public():
    missing = set(rwkv_engine.__all__) - set(re.findall(r"\w+", PROGRAM.read_text()))
    assert not missing
