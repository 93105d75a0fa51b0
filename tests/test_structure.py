"""The house: imports go down only, files stay small, nothing outside the recipe needs torch."""

import ast
import re
from pathlib import Path

import pytest

import rwkv_engine

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "rwkv_engine"
LEVELS = (
    ("errors",),
    ("system",),
    ("numbers",),
    ("kernels",),
    ("formats", "text"),
    ("state", "checkpoints"),
    ("families",),
    ("writing",),
    ("running",),
    ("tools",),
    ("model", "library"),
    ("loading",),
    ("bench", "chat"),
    ("evaluation", "serve"),
    ("shrinking",),
)
LEVEL = {name: number for number, names in enumerate(LEVELS) for name in names}
#: the same for the command: verbs stand side by side and know nothing of each other
CLI_LEVELS = (
    ("interrupt", "output"),
    ("preparing", "progress", "tables"),
    ("options", "sampling", "usage"),
    ("verb",),
    ("app",),
)
CLI_LEVEL = {name: number for number, names in enumerate(CLI_LEVELS) for name in names}
#: what the command uses of the library besides the public names
CLI_USES = {
    "bench",
    "bench.plot",
    "bench.report",
    "chat",
    "errors",
    "evaluation",
    "evaluation.plot",
    "formats",
    "library.caches",
    "library.default_model",
    "library.known_models",
    "library.registry",
    "library.footprint",
    "loading",
    "numbers.sizes",
    "running.compiling",
    "serve.jobs",
    "serve.ray_jobs",
    "serve.running",
    "state",
    "system.extras",
    "system.files",
    "system.pages",
    "system.process",
    "system.folders",
    "system",
    "system.support",
    "system.threads",
    "text.templates",
    "tools.quantize",
    "tools.state_files",
    "writing.sampling",
}
SOURCES = sorted(
    p
    for folder in ("rwkv_engine", "cli", "weights", "benchmarks", "tests")
    for p in (ROOT / folder).rglob("*.py")
)


def imports(path):
    """Full names of the modules that a file imports."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_go_down_and_never_sideways(path):
    own = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    if own == "__init__":
        return  # the door names everything, and imports it when it is asked for
    for name in imports(path):
        parts = name.split(".")
        if parts[0] == "rwkv_engine" and len(parts) > 1 and parts[1] != own:
            assert LEVEL[parts[1]] < LEVEL[own], f"{path.name} ({own}) imports {name}"


def test_no_file_imports_one_that_imports_it():
    """Over any number of steps, and for types alone too. A package's own file only hands names on."""
    names = {".".join(p.relative_to(ROOT).with_suffix("").parts): p for p in PACKAGE.rglob("*.py")}
    below = {
        name: {n for full in imports(p) for n in (full, full.rpartition(".")[0]) if n in names} - {name}
        for name, p in names.items()
    }
    while ground := [name for name, others in below.items() if not others]:
        below = {name: others - set(ground) for name, others in below.items() if name not in ground}
    assert not below


@pytest.mark.parametrize(
    "path", sorted((ROOT / "cli").rglob("*.py")), ids=lambda p: str(p.relative_to(ROOT / "cli"))
)
def test_the_command_imports_downwards_and_little_of_the_library(path):
    own = path.relative_to(ROOT / "cli").parts[0].removesuffix(".py")
    level = CLI_LEVEL.get(own, CLI_LEVEL["verb"])
    public = {f"{home}.{name}" for name, home in rwkv_engine._NAMES.items()}
    for name in imports(path):
        package, _, rest = name.partition(".")
        if package == "rwkv_engine":
            known = {*public, *rwkv_engine.__all__, "__version__"}
            assert rest in known or {rest, rest.rpartition(".")[0]} & CLI_USES or not rest, name
        elif package == "rwkv_engine_cli" and rest.partition(".")[0] != own:
            assert CLI_LEVEL.get(rest.partition(".")[0], CLI_LEVEL["verb"]) < level, name


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(ROOT)))
def test_a_file_has_at_most_320_lines(path):
    assert len(path.read_text().splitlines()) <= 320


def test_torch_is_only_used_by_the_recipe_and_tests():
    users = {
        p.relative_to(ROOT).parts[0] for p in SOURCES if any(n.split(".")[0] == "torch" for n in imports(p))
    }
    assert users <= {"weights", "tests"}


def test_every_public_thing_says_what_it_does():
    silent = []
    for path in sorted(PACKAGE.rglob("*.py")):
        tree = ast.parse(path.read_text())
        things = [tree, *(node for node in tree.body if isinstance(node, ast.FunctionDef | ast.ClassDef))]
        silent += [
            f"{path.name}: {getattr(t, 'name', 'module')}"
            for t in things
            if not ast.get_docstring(t) and getattr(t, "name", "")[:1] != "_"
        ]
    assert not silent


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(ROOT)))
def test_only_formats_and_their_kernels_name_a_quantized_format(path):
    folder, *inside = path.relative_to(ROOT).parts
    if folder in ("rwkv_engine", "cli") and inside[0] not in ("formats", "numbers", "kernels"):
        assert not re.findall(r"\"int8\"|'int8'|INT8", path.read_text())
