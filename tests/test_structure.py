"""Imports run downward only, as the map of the repository in the README draws them."""

import ast

import pytest

from tests.helpers import ROOT

PACKAGE = ROOT / "rl"
# A module may import from layers further down.
LAYERS = [
    {"main", "test", "plot"},
    {"resume", "interrupts", "progress", "video"},
    {"standing"},
    {"plots"},
    {"activations", "evaluation", "build", "logger", "checkpoint", "state"},
    {"metalearner", "sampler"},
    {"rollout"},
    {"chunks", "interventions", "match_params"},
    {"jacobians"},
    {"adaptation"},
    {"batch"},
    {"policies", "envs", "baseline", "episodes", "arguments", "tasks", "events"},
    {"returns", "trpo", "streams", "files", "gates", "intervals", "processes"},
    {"errors", "start", "memory"},
]
# Neighbours that may see one another, in this order.
WITHIN = [("activations", "evaluation"), ("logger", "evaluation"), ("logger", "checkpoint")]


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
    """The module or subpackage of rl that a file belongs to."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def parts_imported(path):
    """The parts of rl that a file imports, its own left out."""
    return {name.split(".")[1] for name in imports(path) if name.startswith("rl.")} - {part(path)}


def layer(name):
    found = [i for i, names in enumerate(LAYERS) if name in names]
    assert len(found) == 1, f"rl.{name} has no place in LAYERS yet"
    return found[0]


def others_imported(path):
    """The top-level packages that a file imports from outside."""
    return {name.split(".")[0] for name in imports(path)} - {"rl"}


MODULES = sorted(path for path in PACKAGE.rglob("*.py") if path != PACKAGE / "__init__.py")


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_run_downward(path):
    for name in parts_imported(path):
        assert layer(name) > layer(part(path)) or (part(path), name) in WITHIN, f"{path} imports rl.{name}"


def test_the_table_names_nothing_that_is_not_there():
    assert {part(path) for path in MODULES} == set().union(*LAYERS)
    found = {(part(path), name) for path in MODULES for name in parts_imported(path)}
    assert found >= set(WITHIN)


def of(*names):
    found = [path for path in MODULES if part(path) in names]
    assert found
    return found


def test_learner_and_sampler_do_not_know_each_other():
    assert not parts_imported(PACKAGE / "metalearner.py") & {"sampler", "rollout", "envs"}
    assert not parts_imported(PACKAGE / "sampler.py") & {"metalearner", "trpo"}


@pytest.mark.parametrize("path", of("trpo", "returns"), ids=lambda path: path.name)
def test_numerics_know_torch_alone(path):
    assert parts_imported(path) == set()
    assert others_imported(path) - {"typing"} == {"torch"}


@pytest.mark.parametrize("path", of("envs"), ids=lambda path: path.name)
def test_environments_never_import_torch(path):
    assert "torch" not in others_imported(path)
    assert parts_imported(path) <= {"errors", "streams"}


@pytest.mark.parametrize("path", of("policies"), ids=lambda path: path.name)
def test_policies_know_nothing_but_themselves(path):
    assert parts_imported(path) == set()


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_nothing_in_the_package_imports_the_tests(path):
    assert not others_imported(path) & {"tests", "pytest", "benchmarks"}
