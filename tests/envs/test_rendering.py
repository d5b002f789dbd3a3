"""What can be seen of an environment through gymnasium's `render`; and that nothing else loads OpenGL."""

import os
import subprocess
import sys

import gymnasium
import numpy as np
import pytest

import rl.envs
from rl.errors import UserError
from tests.support.helpers import ROOT
from tests.support.opengl import can_render

HERE = "tests.support.user_environments"
CTGRAPH_FILE = ROOT / "rl/envs/ctgraph/ctgraph_d2.json"


@pytest.mark.parametrize(
    "name", ["2DNavigation-v0", "CTgraphEnvGoalChange-v0", "Bandit-K5-v0", "TabularMDP-v0", "AntPos-v0", "ML1Push-v2"]
)
def test_every_built_in_environment_is_seen(name):
    if name in ("AntPos-v0", "ML1Push-v2") and not can_render():
        pytest.skip("no OpenGL on this machine")
    options = {"config": str(CTGRAPH_FILE)} if "CT" in name else {}
    env = gymnasium.make(name, render_mode="rgb_array", **options)
    seen = []
    for seed in (0, 0, 1):
        env.reset(seed=seed)
        seen.append(env.render())
    assert seen[0].shape == (240, 320, 3) and seen[0].dtype == np.uint8 and seen[0].std() > 1
    np.testing.assert_array_equal(seen[0], seen[1])
    env.action_space.seed(1)
    for _ in range(2):
        env.step(env.action_space.sample())
    assert (env.render() != seen[2]).any()
    env.close()
    assert gymnasium.make(name, **options).render_mode is None


def test_an_environment_of_the_users_own_is_seen_by_its_own_frames():
    env = rl.envs.make_scalar(f"{HERE}:Rooms-v0", "rgb_array")
    env.set_tasks([{"room": 1}])
    env.reset(seed=1)
    frame = env.render()
    # 30 rows of 20 pixels become 240 of 160, in the middle of a white view.
    assert (frame[:, 80:240] == 80 * env.vector_env.envs[0].unwrapped.room).all() and (frame[:, :80] == 255).all()
    env.vector_env.envs[0].unwrapped.render = lambda: np.zeros((3, 3))
    with pytest.raises(UserError, match=r"render: expected a uint8 array \[height, width, 3\], got float64"):
        env.render()


def test_what_cannot_be_seen_is_one_line():
    with pytest.raises(UserError, match=r"no pictures of .*Walk-v0"):
        rl.envs.make_scalar(f"{HERE}:Walk-v0", "rgb_array")
    with pytest.raises(UserError, match="expected the render_mode rgb_array or None, got 'ansi'"):
        rl.envs.make_scalar("2DNavigation-v0", "ansi")


def test_opengl_is_loaded_by_pictures_alone():
    """With MUJOCO_GL=osmesa where its library is missing, MuJoCo itself cannot be imported."""
    code = (
        "import sys, rl, rl.envs, os\n"
        "env = rl.envs.make('HalfCheetahVel-v1', 1); env.reset(seed=1); env.step(env.action_space.sample())\n"
        "env = rl.envs.make('ML1Push-v2', 1)\n"
        "print('OpenGL' in sys.modules, 'mujoco.osmesa' in sys.modules, os.environ['MUJOCO_GL'])\n"
        "import mujoco\n"
        "try: mujoco.gl_context.GLContext\n"
        "except AttributeError: raise SystemExit('hidden')\n"
        "except Exception as error: print('asked for:', type(error).__name__)\n"
    )
    environment = os.environ | {"MUJOCO_GL": "osmesa", "PYOPENGL_PLATFORM": "none", "PYTHONPATH": str(ROOT)}
    finished = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    assert finished.stdout == "False False osmesa\nasked for: ImportError\n", finished.stderr
