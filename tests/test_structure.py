"""Imports run downward only: CONTRIBUTING's table says who may import whom, and every file is held against it."""

import ast
import re

import pytest

from tests.support.helpers import ROOT

PACKAGE = ROOT / "rl"
MODULES = sorted(path for path in PACKAGE.rglob("*.py") if path != PACKAGE / "__init__.py")


def table():
    """CONTRIBUTING's map: (names in its order, name -> the names that it may import)."""
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `rl/(\w+)(?:/|\.py)` \| .*? \| (.*?) \|$", text, re.MULTILINE)
    return [name for name, _ in rows], {name: set(re.findall(r"`(\w+)`", allowed)) for name, allowed in rows}


ORDER, ALLOWED = table()


def imports(path):
    """Every module that a file imports, wherever in it the import stands."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def part(path):
    """The module or package of rl that a file belongs to."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def parts_imported(path):
    """The modules and packages of rl that a file imports, its own left out."""
    return {name.split(".")[1] for name in imports(path) if name.startswith("rl.")} - {part(path)}


def others_imported(path):
    """The top-level packages that a file imports from outside."""
    return {name.split(".")[0] for name in imports(path)} - {"rl"}


def test_the_table_is_complete_and_runs_downward():
    assert set(ORDER) == {part(path) for path in MODULES}
    assert all(ORDER.index(other) > ORDER.index(name) for name in ORDER for other in ALLOWED[name])


@pytest.mark.parametrize("name", ORDER)
def test_the_table_allows_what_is_imported_and_nothing_else(name):
    imported = set().union(*(parts_imported(path) for path in MODULES if part(path) == name))
    assert imported == ALLOWED[name]


def modules(*names):
    found = [path for path in MODULES if part(path) in names]
    assert found
    return pytest.mark.parametrize("path", found, ids=lambda path: str(path.relative_to(PACKAGE)))


@modules("envs")
def test_environments_never_import_torch(path):
    assert "torch" not in others_imported(path)


@pytest.mark.parametrize("name", ["trpo", "returns"])
def test_numerics_know_torch_alone(name):
    path = PACKAGE / "algorithm" / f"{name}.py"
    assert parts_imported(path) == set()
    assert others_imported(path) - {"collections", "math", "typing", "jaxtyping"} == {"torch"}


@modules(*ORDER)
def test_nothing_in_the_package_imports_the_tests(path):
    assert not others_imported(path) & {"tests", "pytest", "benchmarks"}


def test_tests_share_code_through_support_alone():
    """A test module imports no other one; what several need stands in tests/support/."""
    for path in (ROOT / "tests").rglob("test_*.py"):
        assert not [name for name in imports(path) if re.search(r"^tests\..*\btest_", name)], path
