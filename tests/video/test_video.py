"""Films show the evaluated episodes, with words on them."""

import json
import subprocess
import sys

import numpy as np
import pytest
from imageio_ffmpeg import get_ffmpeg_exe
from PIL import Image, ImageSequence

from rl import drawing, envs, plot, streams, video
from rl.config import Config
from rl.envs import frames
from rl.envs.mujoco import opengl
from rl.errors import UserError
from rl.evaluation.task_choice import distinct
from rl.plots import style
from rl.run import config_file
from rl.run.checkpoint import save_policy
from rl.run.setup import Setup
from rl.sampling.in_process import InProcessSampler
from rl.test import main
from rl.video import film, replay
from tests.support import corridor_family
from tests.support.helpers import ROOT
from tests.support.opengl import can_render
from tests.support.user_environments import Rooms

USERS = "tests.support.user_environments"
TREE = str(ROOT / "rl" / "envs" / "ctgraph" / "ctgraph_d2.json")
CTGRAPH = {"env_name": "CTgraphEnvGoalChange-v0", "env_config_path": TREE}
SIZES = {"hidden_size": 8, "num_layers": 1, "test_batch_size": 2, "num_test_tasks": 4}


def evaluated(num_test_steps=1, **options):
    """(setup, tasks, episodes of all rollouts, stream) of a small evaluation."""
    setup = Setup(Config(**SIZES | {"num_test_steps": num_test_steps} | options))
    tasks = setup.sample_tasks(4, "test", 0, streams.EVALUATE)
    stream = setup.stream(0, streams.EVALUATE)
    sampler = InProcessSampler(setup.spec, 5)
    rollouts = sampler.sample(setup.initial_params(), tasks, setup.test_plan(), stream)
    return setup, tasks, rollouts.episodes, stream


def read(path):
    """The frames of a film, [frames, H, W, 3]."""
    if path.suffix == ".gif":
        with Image.open(path) as content:
            return np.stack([np.asarray(frame.convert("RGB")) for frame in ImageSequence.Iterator(content)])
    with Image.open(path.with_suffix(".gif")) as content:
        width, height = content.size
    command = [get_ffmpeg_exe(), "-i", str(path), "-f", "rawvideo", "-pix_fmt", "rgb24", "-"]
    pixels = subprocess.run(command, capture_output=True, check=True).stdout
    return np.frombuffer(pixels, np.uint8).reshape(-1, height, width, 3)


def words(frames, panel):
    """The caption below a panel, [frames, CAPTION, WIDTH, 3]."""
    top = film.HEADER + film.HEIGHT
    return frames[:, top : top + film.CAPTION, panel * film.WIDTH : (panel + 1) * film.WIDTH].astype(int)


def test_navigation_is_filmed_before_and_after_each_update(tmp_path):
    setup, tasks, rollouts, stream = evaluated(num_test_steps=2)
    paths = video.record(tmp_path, setup.spec, tasks, rollouts, stream, 0)
    assert sorted(paths) == sorted(tmp_path.iterdir())
    assert [path.suffix for path in paths] == [".mp4", ".gif"]
    for path in paths:
        frames = read(path)
        # 101 states, at most 100 frames; a header, three panels, captions.
        longest = max(int(episodes.mask[:, :, 0].sum(axis=1).max()) for episodes in rollouts)
        assert longest == 100 and frames.shape == (100, 32 + 240 + 48, 3 * 320, 3)
        for panel in range(3):
            picture = frames[:, film.HEADER : film.HEADER + film.HEIGHT, panel * film.WIDTH : (panel + 1) * film.WIDTH]
            assert all(frame.std() > 1 for frame in picture)
            assert np.abs(picture[-1].astype(int) - picture[0]).max() > 100
            caption = words(frames, panel)
            assert caption.min() < 60
            # The return so far changes, the line that names the panel does not.
            assert np.abs(caption[-1, 24:] - caption[1, 24:]).max() > 100
            assert np.abs(caption[-1, :24, :150] - caption[1, :24, :150]).max() < 60
        left, right = words(frames, 0)[-1], words(frames, 1)[-1]
        assert np.abs(left[:24, :150] - right[:24, :150]).max() > 100


def test_ctgraph_is_filmed(tmp_path):
    setup, tasks, rollouts, stream = evaluated(**CTGRAPH)
    numbers = video.chosen(tasks, 4)
    paths = [path for number in numbers for path in video.record(tmp_path, setup.spec, tasks, rollouts, stream, number)]
    # First one of each kind, then the others.
    leaves = [task["leaf"] for task in tasks]
    kinds = [leaves.index(leaf) for leaf in sorted(set(leaves))]
    assert len(kinds) < 4
    order = [*kinds, *(task for task in range(4) if task not in kinds)]
    assert [path.name for path in paths] == [f"video-task{task}{kind}" for task in order for kind in (".mp4", ".gif")]
    for path in paths:
        frames = read(path)
        assert len(frames) in range(2, 9) and frames.shape[1:] == (320, 640, 3)
        assert np.abs(frames[-1].astype(int) - frames[0]).max() > 100


def test_a_family_of_ones_own_is_filmed(tmp_path, monkeypatch):
    titles, write = [], film.write
    monkeypatch.setattr(film, "write", lambda path, title, *rest: titles.append(title) or write(path, title, *rest))
    with corridor_family.installed(tmp_path) as file:
        setup, tasks, rollouts, stream = evaluated(env_name=corridor_family.NAME, env_config_path=str(file))
        video.check(setup.config, 1)
        frames = read(video.record(tmp_path, setup.spec, tasks, rollouts, stream, 1)[1])
    assert titles == [f"corridor:Corridor-v0, task 1: to cell {tasks[1]['cell']}"]
    assert frames.shape[1:] == (320, 640, 3) and np.abs(frames[-1].astype(int) - frames[0]).max() > 100


def test_an_environment_of_ones_own_is_filmed_by_its_frames(tmp_path, monkeypatch):
    shown = []
    monkeypatch.setattr(film, "write", lambda path, title, panels, moments: shown.extend(panels) or [])
    setup, tasks, rollouts, stream = evaluated(env_name=f"{USERS}:Rooms-v0")
    video.check(setup.config, 1)
    video.record(tmp_path, setup.spec, tasks, rollouts, stream, 2)
    assert [len(panel.views) for panel in shown] == [21, 21]
    # A frame is as light as the number of its room, which the observations hold one-hot at their end.
    rooms = rollouts[0].observations[2, :, 0, -3:] @ [1, 2, 3]
    assert [int(view.picture[120, 160, 0]) for view in shown[0].views[:20]] == (80 * rooms).tolist()


def test_trajectories_of_an_environment_of_ones_own_are_a_film_strip(tmp_path, monkeypatch, capsys):
    config = Config(**SIZES, env_name=f"{USERS}:Rooms-v0", num_workers=0, num_test_steps=2)
    setup = Setup(config)
    config_file.write(tmp_path, config, setup.policy)
    save_policy(tmp_path / "policy-0.pt", setup.initial_params())
    command = [str(tmp_path / "config.json"), str(tmp_path / "policy-0.pt"), "--logdir", str(tmp_path / "logs")]
    assert main(command) == 0
    (run,) = (tmp_path / "logs").glob("*/*/*")
    seen = []
    monkeypatch.setattr(style, "save", lambda figure, *_: seen.append(figure) or [])
    assert plot.main(["trajectories", str(run)]) == 0
    assert "the first episode of each at five moments, after 0 and 2 updates" in capsys.readouterr().out
    tasks = json.loads((run / "tasks.json").read_text())
    rows = 2 * len(distinct(tasks))
    axes = np.array(seen[0].axes).reshape(rows, 5)
    assert [panel.get_title() for panel in axes[0]] == ["step 0", "step 5", "step 10", "step 15", "step 20"]
    observations = np.load(run / "episodes.npz")["observations"]
    for row, updates in ((0, 0), (1, 2)):
        rooms = observations[distinct(tasks)[0], ::5, 0, updates, -3:] @ [1, 2, 3]
        lightness = [int(panel.images[0].get_array()[120, 160, 0]) for panel in axes[row, :4]]
        assert lightness == (80 * rooms).tolist()
    assert seen[0].get_supxlabel() == ""
    # A remark stands beside the step, a legend below.
    monkeypatch.setattr(frames.Scene, "legend", "what is seen")
    monkeypatch.setattr(frames.Scene, "view", lambda self: (np.zeros((240, 320, 3), np.uint8), "so it is"))
    assert plot.main(["trajectories", str(run)]) == 0
    assert seen[1].get_supxlabel() == "what is seen" and seen[1].axes[0].get_title() == "step 0: so it is"
    # What was recorded no longer happens.
    monkeypatch.setattr(Rooms, "step", lambda self, action: (self._observation(), -5.0, False, False, {}))
    assert plot.main(["trajectories", str(run)]) == 2
    assert "differs from the recorded one in step 0" in capsys.readouterr().err


def test_one_scale_for_all_panels_and_all_time(tmp_path, monkeypatch):
    setup, tasks, rollouts, stream = evaluated(num_test_steps=2)
    farthest = max(float(np.abs(episodes.observations[0, :, 0]).max()) for episodes in rollouts)
    assert 1.1 * farthest > 0.65  # a way leads out of the square of goals
    shown = []
    monkeypatch.setattr(film, "write", lambda path, title, panels, moments: shown.extend(panels) or [])
    video.record(tmp_path, setup.spec, tasks, rollouts, stream, 0)
    goal, places = np.array(tasks[0]["goal"]), set()
    for panel in shown:
        for view in panel.views:
            rows, columns = np.nonzero((view.picture == drawing.rgb(drawing.VERMILION)).all(axis=2))
            places.add((int(rows.min()), int(rows.max()), int(columns.min()), int(columns.max())))
    # The point's dot can hide a corner of the star, never move it.
    top, bottom, left, right = np.array(sorted(places)).T
    assert bottom.max() - top.min() < 20 and right.max() - left.min() < 20
    x, y = 160 + goal[0] * 120 / (1.1 * farthest), 120 - goal[1] * 120 / (1.1 * farthest)
    assert top.min() < y < bottom.max() and left.min() < x < right.max()


ROBOTS = ["HalfCheetahDir-v1", "AntPos-v0"]


@pytest.mark.parametrize("env_name", ["2DNavigation-v0", "CTgraphEnvGoalChange-v0", *ROBOTS, "ML1Push-v2"])
def test_episodes_run_again_earn_the_same_bits(env_name):
    class Blind:
        """Counts what it is shown."""

        steps = 0

        def begin(self, task):
            self.steps = 0

        def follow(self):
            self.steps += 1

        def view(self):
            return np.zeros((1, 1, 3), np.uint8), str(self.steps)

    options = {"env_name": env_name} | (CTGRAPH if "CTgraph" in env_name else {})
    setup, tasks, rollouts, stream = evaluated(**options)
    env = envs.make(env_name, 1, **setup.spec.env_options)
    for number, task in enumerate(tasks[:2]):
        for updates, episodes in enumerate(rollouts):
            one = episodes.tasks(number, number + 1)
            key = streams.key(stream.seed, 0, streams.EVALUATE + updates, number, 0, streams.ENVIRONMENT)
            panel = replay.panel(env, Blind(), task, one, key)
            steps = int(one.mask[0, :, 0].sum())
            assert panel.steps == steps and panel.views[-1].remark == str(steps)
            assert panel.views[-1].earned == panel.total == pytest.approx(float(one.returns[0, 0]))
            shown = replay.shown(env.horizon)
            assert [int(view.remark) for view in panel.views] == [*shown[shown < steps], steps]
            assert [view.step for view in panel.views] == [int(view.remark) for view in panel.views]
            other = one.rewards.copy()
            other[0, steps - 1, 0] += 1e-9
            with pytest.raises(RuntimeError, match=f"differs from the recorded one in step {steps - 1}"):
                replay.panel(env, Blind(), task, type(one)(one.observations, one.actions, other, one.mask), key)
    if env_name in ROBOTS:
        with pytest.raises(RuntimeError, match="in step 0"):
            replay.panel(env, Blind(), task, one, key + 1)


def test_at_most_a_hundred_moments_are_shown():
    assert replay.shown(7).tolist() == list(range(8))
    assert replay.shown(99).tolist() == list(range(100))
    for horizon in (100, 200, 500):
        moments = replay.shown(horizon)
        assert len(moments) == 100 and moments[0] == 0 and moments[-1] == horizon and (np.diff(moments) > 0).all()


def test_a_panel_that_ended_stays_and_says_so():
    picture = np.zeros((film.HEIGHT, film.WIDTH, 3), np.uint8)
    short, long = (
        replay.Panel([replay.View(picture, "", float(i), i) for i in range(count)], count - 1.0, count - 1)
        for count in (3, 5)
    )
    frames = np.stack([np.asarray(image) for image in film.frames("title", [short, long], np.arange(6))])
    assert len(frames) == 5
    changes = [np.abs(np.diff(words(frames, panel), axis=0)).max(axis=(1, 2, 3)) > 0 for panel in (0, 1)]
    # After its third view, the first panel's caption changes once: "ended at step 2".
    assert [change.tolist() for change in changes] == [[True, True, True, False], [True, True, True, True]]


def test_more_than_five_panels_make_rows():
    panel = replay.Panel([replay.View(np.zeros((film.HEIGHT, film.WIDTH, 3), np.uint8), "", 0.0, 0)], 0.0, 1)
    (image,) = film.frames("title", [panel] * 7, np.arange(2))
    assert image.size == (5 * 320, 32 + 2 * (240 + 48))


def test_a_long_title_is_cut():
    title = film.cut("a very long title " * 20, 300)
    assert title.startswith("a very long") and title.endswith("…")
    assert film.font(15, bold=True).getlength(title) <= 300 < film.font(15, bold=True).getlength(title + "mm")


@pytest.mark.parametrize("env_name", [*ROBOTS, pytest.param("ML1Push-v2", marks=pytest.mark.slow)])
def test_robots_are_filmed(tmp_path, env_name):
    if not can_render():
        pytest.skip("no OpenGL on this machine")
    setup, tasks, rollouts, stream = evaluated(env_name=env_name)
    for episodes in rollouts:
        # The first twelve steps will do.
        for array in (*episodes.arrays(), *episodes.infos.values()):
            array[:, 12:] = 0
    paths = video.record(tmp_path, setup.spec, tasks, rollouts, stream, 0)
    for path in paths:
        frames = read(path)
        moments = replay.shown(200)
        assert frames.shape == (1 + (moments < 12).sum(), 320, 640, 3)
        for panel in range(2):
            picture = frames[:, film.HEADER : film.HEADER + film.HEIGHT, panel * film.WIDTH : (panel + 1) * film.WIDTH]
            assert all(frame.std() > 10 for frame in picture)
            assert np.abs(picture[-1].astype(int) - picture[0]).max() > 50
            caption = words(frames, panel)
            assert np.abs(caption[-1, 24:] - caption[0, 24:]).max() > 100


def checked(count=1, **options):
    video.check(Config(**SIZES | options), count)


def test_what_cannot_be_filmed_is_said_before_the_evaluation(monkeypatch):
    for count in (-1, 0, 5):
        with pytest.raises(UserError, match=f"--video: expected 1 to 4 episodes, one a task, got {count}"):
            checked(count)
    with pytest.raises(UserError, match=f"--video: there are no pictures of {USERS}:Walk-v0"):
        checked(env_name=f"{USERS}:Walk-v0")
    monkeypatch.setitem(sys.modules, "imageio_ffmpeg", None)
    with pytest.raises(UserError, match="--video: ffmpeg is missing"):
        checked()


@pytest.fixture
def renderers(monkeypatch):
    """Pretend that only some ways of rendering work: a set of their names; those tried are listed."""
    working, tried = set(), []
    monkeypatch.delenv("MUJOCO_GL", raising=False)
    monkeypatch.setattr(opengl, "WAYS", ("egl", "osmesa"))
    monkeypatch.setattr(opengl, "works", lambda way: tried.append(way) or way in working)
    monkeypatch.setattr(opengl, "use", lambda way: tried.append(f"use {way}"))
    opengl.choose.cache_clear()
    yield working, tried
    opengl.choose.cache_clear()


def test_a_machine_without_opengl_is_told_what_to_install(renderers):
    _, tried = renderers
    with pytest.raises(UserError) as caught:
        checked(env_name="HalfCheetahDir-v1")
    assert tried == ["egl", "osmesa"]
    assert "\n" not in str(caught.value)
    assert "MuJoCo cannot render here" in str(caught.value) and "libosmesa6" in str(caught.value)


def test_osmesa_is_the_second_choice(renderers):
    working, tried = renderers
    working.add("osmesa")
    checked(env_name="HalfCheetahDir-v1")
    checked(env_name="AntDir-v1")
    assert tried == ["egl", "osmesa", "use osmesa"]


def test_mujoco_gl_is_heeded(renderers, monkeypatch):
    working, tried = renderers
    working.update(("egl", "osmesa"))
    monkeypatch.setenv("MUJOCO_GL", "osmesa")
    checked(env_name="HalfCheetahDir-v1")
    assert tried == ["osmesa", "use osmesa"]


def test_a_way_that_fails_does_not_work(monkeypatch):
    asked = []

    def run(command, env, **options):
        asked.append((command[0], env["MUJOCO_GL"]))
        return subprocess.CompletedProcess(command, int(env["MUJOCO_GL"] != "egl"))

    monkeypatch.setattr(subprocess, "run", run)
    assert opengl.works("egl") and not opengl.works("osmesa")
    assert asked == [(sys.executable, "egl"), (sys.executable, "osmesa")]


def test_the_option_of_test_py(tmp_path, capsys, monkeypatch):
    config = Config(**SIZES | CTGRAPH, num_workers=1, num_test_steps=1)
    setup = Setup(config)
    config_file.write(tmp_path, config, setup.policy)
    save_policy(tmp_path / "policy-0.pt", setup.initial_params())
    command = [str(tmp_path / "config.json"), str(tmp_path / "policy-0.pt"), "--logdir", str(tmp_path / "logs")]
    assert main([*command, "--video", "9"]) == 2
    assert not (tmp_path / "logs").exists()
    assert "expected 1 to 4" in capsys.readouterr().err
    assert main([*command, "--video", "1"]) == 0
    (run,) = (tmp_path / "logs").glob("*/*/*")
    assert len(list(run.glob("video-task*.mp4"))) == len(list(run.glob("video-task*.gif"))) == 1

    # A film that fails costs this film alone.
    def fails_once(path, *arguments):
        written.append(path.name)
        if len(written) == 2:
            path.with_suffix(".mp4").write_bytes(b"half")
            raise OSError("no codec")
        return write(path, *arguments)

    written, write = [], film.write
    monkeypatch.setattr(film, "write", fails_once)
    capsys.readouterr()
    assert main([*command, "--video", "3", "--expname", "failing"]) == 1
    (told,) = capsys.readouterr().err.splitlines()
    assert f"{written[1]}.mp4: cannot be drawn: OSError: no codec" in told and len(written) == 3
    (run,) = (tmp_path / "logs").glob("*/*/*_failing")
    assert {path.stem for path in run.glob("video-task*.*")} == {written[0], written[2]}
    assert (run / "results.json").is_file() and (run / "adaptation.png").is_file()
