import numpy as np
import pytest

from rl.evaluation import similarity


def literal_cka(x, y):
    """‖YᵀX‖²_F / (‖XᵀX‖_F ‖YᵀY‖_F) of centred columns."""
    x, y = x - x.mean(axis=0), y - y.mean(axis=0)
    return np.linalg.norm(y.T @ x) ** 2 / (np.linalg.norm(x.T @ x) * np.linalg.norm(y.T @ y))


def drawn(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape)


def test_the_definition():
    x, y = drawn(12, 5), drawn(12, 5, seed=1)
    assert similarity.cka(np.stack([x, y]))[0, 1] == pytest.approx(literal_cka(x, y), rel=1e-6)


def test_equal_rotated_scaled_and_shifted_representations_are_alike():
    x = drawn(20, 4)
    rotation, _ = np.linalg.qr(drawn(4, 4, seed=1))
    alike = np.stack([x, x, x @ rotation, -3.0 * x, x + 7.0])
    np.testing.assert_allclose(similarity.cka(alike), 1.0, atol=1e-6)


def test_half_of_it_shared():
    """X = (u, v), Y = (u, 0), u ⊥ v of norm² 4: ‖YᵀX‖² = 16, ‖XᵀX‖ = √(16 + 16), ‖YᵀY‖ = 4·1: 16/(√32·4) = 1/√2."""
    u, v = np.array([1.0, 1.0, -1.0, -1.0]), np.array([1.0, -1.0, 1.0, -1.0])
    found = similarity.cka(np.stack([np.stack([u, v], axis=1), np.stack([u, 0 * v], axis=1)]))
    assert found[0, 1] == pytest.approx(1 / np.sqrt(2), rel=1e-6)


def test_what_does_not_vary_is_undefined():
    found = similarity.similarity(np.stack([np.ones((5, 3)), drawn(5, 3)]))
    assert np.isnan(found.cka[0, 1]) and found.cka[1, 1] == pytest.approx(1.0)
    assert found[1:] == (None, None, None, None)


def test_the_null_is_what_unrelated_representations_have():
    unrelated = drawn(4, 60, 10)
    found = similarity.similarity(unrelated)
    assert found.mean == pytest.approx(found.null_mean, abs=0.05)
    assert found.null_mean < found.null_95th
    alike = similarity.similarity(np.stack([drawn(60, 10)] * 4))
    assert alike.mean == pytest.approx(1.0, abs=1e-6) and alike.null_95th < 0.5


def test_the_interval_resamples_tasks():
    # Three tasks, pairs 0.2, 0.4, 0.9: resamples of two kinds of task see one of them alone.
    matrix = np.array([[1.0, 0.2, 0.4], [0.2, 1.0, 0.9], [0.4, 0.9, 1.0]])
    assert similarity.interval(matrix, np.random.default_rng(0)) == pytest.approx((0.2, 0.9))
    assert similarity.off_diagonal(matrix) == pytest.approx(0.5)
    assert similarity.interval(matrix[:2, :2], np.random.default_rng(0)) is None


def test_the_null_is_that_of_permuted_rows():
    """The first permutation, carried out on the representations themselves."""
    representations = drawn(3, 40, 6)
    found = similarity.null_means(similarity.grams(representations), np.random.default_rng(7))
    rng = np.random.default_rng(7)
    permuted = np.stack([representation[rng.permutation(40)] for representation in representations])
    pairs = [literal_cka(permuted[i], permuted[j]) for i, j in ((0, 1), (0, 2), (1, 2))]
    assert found[0] == pytest.approx(np.mean(pairs), rel=1e-4)
    assert len(found) == similarity.PERMUTATIONS
