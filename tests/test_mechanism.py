"""The exact measures of studies/exact.py, on a policy whose chances are known, and the arms of studies/mechanism.py."""

import dataclasses
import importlib
import json
import sys

import numpy as np
import pytest
import torch

from rl.config import parse_options
from rl.run.setup import Setup
from tests.support.helpers import ROOT

sys.path.insert(0, str(ROOT / "studies"))
exact, mechanism, table = map(importlib.import_module, ("exact", "mechanism", "table"))
TABLE = table.read()
FILE = str(ROOT / "rl/envs/ctgraph/ctgraph_d3.json")


@pytest.fixture(scope="module")
def graph():
    config = parse_options(TABLE.options(mechanism.FIVE, "cavia"))
    return exact.Graph(Setup(dataclasses.replace(config, env_config_path=FILE, hidden_size=8)))


def test_every_run_that_is_measured_exactly_is_an_arm_of_the_page():
    arms = [(arm.experiment, arm.method) for arm in mechanism.EVERY]
    rows = [row for row in TABLE.experiments.values() if row.exact]
    assert sorted(arms) == sorted((row.name, method) for row in rows for method in row.methods)
    letters = {arm.letter for arm in mechanism.EVERY}
    assert len(letters) == len(arms)
    families = (mechanism.CONTRASTS, mechanism.SECONDARY, mechanism.ADDED, mechanism.MORE)
    named = [
        *mechanism.DRAWN.values(),
        *(part for family in families for _, *parts in family for part in parts),
    ]
    assert {letter for part in named for letter in part} <= letters
    # Arms that are compared differ in what they are named for alone.
    assert {row.save_freq for row in rows} == {10} and len({row.options for row in rows}) == 1


def test_the_chances_of_an_even_policy_are_counted_by_hand(graph):
    """Four waits and three decisions, each a third of three actions; two of three actions go on nowhere."""
    params = {name: torch.zeros(shape) for name, shape in graph.policy.shapes.items()}
    chances = graph.chances(params, torch.zeros(2, 10))
    np.testing.assert_allclose(chances, (1 / 3) ** 7, rtol=1e-5)
    found = graph.measure(params, seed=1, draws=2)
    np.testing.assert_allclose(found["coverage"], 1 - (1 - (1 / 3) ** 7) ** 25, rtol=1e-4)
    # Such a policy does not depend on the context.
    np.testing.assert_allclose(found["own"], (1 / 3) ** 7, rtol=1e-4)


def test_a_visit_that_is_handed_over_makes_its_leaf_likelier(graph):
    params = graph.setup.initial_params()
    params["layer3.bias"][0] = 1.0  # waits
    found = graph.measure(params, seed=1, draws=4)
    before = graph.chances(params, torch.zeros(1, 10))[0]
    assert (found["handed"] > before).all()


def test_a_leaf_is_lost_after_it_was_last_a_half_or_more():
    assert exact.lost([0.2, 0.9, 0.4, 0.8, 0.3, 0.1], [0, 10, 20, 30, 40, 400]) == 30
    assert exact.lost([0.2, 0.9, 0.4, 0.8], [0, 10, 20, 400]) is None
    assert exact.lost([0.2, 0.3, 0.4], [0, 10, 400]) is None
    run = {"checkpoints": [0, 10, 400], "leaves": {"coverage": [[0.9, 0.1], [0.1, 0.1], [0.2, 0.1]]}}
    assert mechanism._fates([run], "coverage") == "1.0; 1.0 (0)"


def test_the_table_of_line_searches_tells_each_seed_and_the_shares_of_all(tmp_path):
    path = tmp_path / "line_search.json"
    assert mechanism.searches(path) == []
    seeds = [{"refused": {"KL": 8, "surrogate": 2}, "short": [0.0002], "smooth": 0.0001},
             {"refused": {"surrogate and KL": 10}, "short": [0.0041], "smooth": 0.0001}]  # fmt: skip
    none = {"refused": {}, "short": [0.0001, 0.0123], "smooth": 0.0001}
    content = {"commit": "0", "nm_hard/1": seeds[0], "nm_hard/2": seeds[1], "nm_hard_credit/1": none}
    path.write_text(json.dumps(content), encoding="utf-8")
    assert mechanism.searches(path)[2:-1] == [
        "| B | hard gates | 10; 10 | 0.40 | 0.10 | 0.50 | 0.0002; 0.0041 |  | 0.0001 |",
        "| I | hard gates, credit for exploration | 0 | 0.00 | 0.00 | 0.00 | 0.0001 | 0.0123 | 0.0001 |",
    ]
