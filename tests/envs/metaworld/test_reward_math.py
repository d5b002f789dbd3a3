import numpy as np
import pytest

pytest.importorskip("metaworld")

from metaworld.utils import reward_utils
from scipy.spatial.transform import Rotation

from rl.envs.metaworld import reward_math


def test_stand_ins_equal_what_they_stand_for():
    """In value and, because float32 actions mix with the results, in type."""
    rng = np.random.default_rng(0)
    rounding = 8 * np.finfo(np.float64).eps  # of some operations in another order, or by another library

    def same(ours, theirs):
        assert type(ours) is type(theirs)
        # exp(y) multiplies the relative error of y by y.
        allowed = rounding * (1 + np.abs(np.log(np.maximum(np.abs(theirs), np.finfo(np.float64).tiny))))
        assert (np.abs(ours - theirs) <= allowed * np.abs(theirs)).all(), (ours, theirs)

    for _ in range(300):
        x = rng.choice([float, np.float64, np.float32])(rng.uniform(-1, 1))
        low, width = rng.uniform(-0.5, 0.5, 2)
        margin = rng.choice([0.0, abs(rng.normal()), np.float64(0.3)])
        sigmoid = str(rng.choice(["long_tail", "gaussian", "linear", "reciprocal"]))
        arguments = (x, (low, low + abs(width)), margin, sigmoid, 0.1)
        same(reward_math.tolerance(*arguments), reward_utils.tolerance(*arguments))
        same(reward_math.clip(x, -0.3, 0.4), np.clip(x, -0.3, 0.4))
        a, b = rng.uniform(size=2).tolist()
        for first, second in ((a, b), (a, np.float32(b)), (np.float64(a), b), (0.0, 0.0)):
            same(reward_math.hamacher_product(first, second), reward_utils.hamacher_product(first, second))
        vector, matrix = rng.normal(size=3), rng.normal(size=(2, 2))
        same(reward_math.norm(vector), np.linalg.norm(vector))
        same(reward_math.norm(vector, ord=1), np.linalg.norm(vector, ord=1))
        same(reward_math.norm(matrix), np.linalg.norm(matrix))
        same(reward_math.hstack((a, b)), np.hstack((a, b)))
        same(reward_math.hstack((vector, vector)), np.hstack((vector, vector)))
        rotation = Rotation.random(rng=rng).as_matrix()
        ours, theirs = (kind.from_matrix(rotation).as_quat() for kind in (reward_math.Rotation, Rotation))
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=rounding)


@pytest.mark.parametrize(
    ("stand_in", "original", "arguments"),
    [
        ("tolerance", reward_utils.tolerance, (0.5, (1.0, 0.0), 0.1, "long_tail")),
        ("tolerance", reward_utils.tolerance, (0.5, (0.0, 0.1), -0.1, "long_tail")),
        ("tolerance", reward_utils.tolerance, (0.5, (0.0, 0.1), 0.1, "long_tail", 0.0)),
        ("hamacher_product", reward_utils.hamacher_product, (1.5, 0.5)),
    ],
)
def test_stand_ins_refuse_what_the_originals_refuse(stand_in, original, arguments):
    for function in (original, getattr(reward_math, stand_in)):
        with pytest.raises(ValueError, match="must"):
            function(*arguments)
