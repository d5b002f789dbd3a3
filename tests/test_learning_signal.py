"""The measures of studies/learning_signal.py, where the answers are known."""

import importlib
import sys

import numpy as np
import pytest

from rl.sampling.episodes import Episodes
from tests.support.helpers import ROOT

sys.path.insert(0, str(ROOT / "studies"))
learning_signal = importlib.import_module("learning_signal")


def episodes(observations, rewards):
    shape = rewards.shape
    infos = {"success": np.zeros(shape, bool)}
    return Episodes(observations, np.zeros((*shape, 1), np.float32), rewards, np.ones(shape, np.float32), infos)


def test_the_share_of_signal_is_that_of_the_gradients_that_were_drawn():
    """Gradients of length 2 with noise of expected squared length 100 each: 4 / (4 + 100 / 25) of 25 tasks."""
    generator = np.random.default_rng(0)
    gradients = generator.normal(size=(4000, 100)) + np.eye(100)[0] * 2
    assert learning_signal.signal(gradients, 25) == pytest.approx(0.5, abs=0.03)
    assert learning_signal.signal(gradients - np.eye(100)[0] * 2, 25) == pytest.approx(0, abs=0.03)


def test_returns_that_the_baseline_can_and_cannot_explain():
    generator = np.random.default_rng(0)
    observations = generator.normal(size=(2, 20, 50, 3)).astype(np.float32)
    # With γ = 0 the returns are the rewards.
    linear, noise = observations[..., 0] ** 2 - observations[..., 1], generator.normal(size=(2, 20, 50))
    explained = [
        learning_signal.explained_variance(episodes(observations, rewards.astype(np.float32)), 0.0)
        for rewards in (linear, noise, linear - linear.mean() + noise * linear.std())
    ]
    assert explained == pytest.approx([1, 0, 0.5], abs=0.06)


def test_a_hand_that_comes_near_and_an_object_that_moves():
    observations = np.zeros((1, 5, 4, 39), np.float32)
    observations[..., 4] = 1.0  # the object, 1 m away
    observations[0, 2:, 1:, 0] = 0.97  # in three of four episodes the hand comes near it
    observations[0, 3:, 2:, 5] = 0.03  # in two it moves
    rewards = np.ones((1, 5, 4), np.float32)
    done = episodes(observations, rewards)
    done.infos["success"][0, 4, 3] = True
    expected = {"returns": 5.0, "success": 0.25, "near": 0.75, "moved": 0.5}
    assert learning_signal.moves(done) == pytest.approx(expected)
