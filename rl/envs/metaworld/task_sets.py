"""Meta-World's own environments, and the task sets that its benchmarks draw from a seed."""

import functools
import pickle
from collections.abc import Collection
from typing import Any

import metaworld
import mujoco
from metaworld import env_dict
from metaworld.env_dict import ALL_V3_ENVIRONMENTS

REWARD_FUNCTION_VERSION = "v2"


class _Lean:
    """A mixin that loads a model without what only pictures need: textures, and the shapes that touch nothing.

    That is six sevenths of the memory and a fifth of the time of a physics step: the engine takes such shapes into
    account when it looks for bodies that may touch. Their masses stand in the model files, so the motion is the same.
    """

    fullpath: str

    def _initialize_simulation(self) -> tuple[mujoco.MjModel, mujoco.MjData]:
        spec = mujoco.MjSpec.from_file(self.fullpath)
        for geom in list(spec.geoms):
            # Meta-World finds geoms by name.
            if not (geom.contype or geom.conaffinity or geom.name):
                geom.delete()
        meshes = {geom.meshname for geom in spec.geoms}
        for mesh in list(spec.meshes):
            if mesh.name not in meshes:
                mesh.delete()
        for material in spec.materials:
            material.textures = [""] * len(material.textures)
        for texture in list(spec.textures):
            texture.delete()
        model = spec.compile()
        return model, mujoco.MjData(model)


def stock_env(env_name: str) -> Any:
    """Meta-World's own environment of this name, without what only pictures need."""
    cls = ALL_V3_ENVIRONMENTS[env_name]
    return type(cls.__name__, (_Lean, cls), {})(reward_function_version=REWARD_FUNCTION_VERSION)


def _still_env(env_name: str) -> Any:
    """An environment whose hand does not move on a reset: the parameters that a reset draws do not depend on that."""
    env = stock_env(env_name)
    env.do_simulation = lambda control, n_frames: mujoco.mj_kinematics(env.model, env.data)
    return env


def draw_task_sets(benchmark: str, seed: int) -> dict[str, dict[str, list[list[float]]]]:
    """The task sets of `metaworld.ML1(benchmark, seed)`, `metaworld.ML10(seed)` or `metaworld.ML45(seed)`.

    The constructors simulate 100 environment steps for each of their tasks and throw the result away; the
    function that they call draws the same tasks without that, in an eighth of the time for ML45.

    Args:
        benchmark: "ML10", "ML45" or an environment's name.
        seed: an integer from 0 to 2³² − 2.

    Returns:
        {"train" or "test": {env_name: 50 frozen parameter vectors, lists of floats}}
    """
    if benchmark in ALL_V3_ENVIRONMENTS:
        names = {split: [benchmark] for split in ("train", "test")}
        seeds = {"train": seed, "test": seed + 1}
    else:
        names = getattr(env_dict, f"{benchmark}_V3")
        seeds = {"train": seed, "test": seed}
    return {split: _draw_tasks(names[split], seeds[split]) for split in ("train", "test")}


def _draw_tasks(env_names: Collection[str], seed: int) -> dict[str, list[list[float]]]:
    classes = {name: functools.partial(_still_env, name) for name in env_names}
    arguments = {name: env_dict.ML1_ARGS_KWARGS[name] for name in env_names}
    vectors: dict[str, list[list[float]]] = {name: [] for name in env_names}
    for task in metaworld._make_tasks(classes, arguments, metaworld._ML_OVERRIDE, seed):
        vectors[task.env_name].append(pickle.loads(task.data)["rand_vec"].tolist())
    return vectors
