"""Scenes of films, set up by hand."""


def begun(env, scene_class, task):
    """The scene of an environment of one episode which has just begun."""
    env.set_tasks([task])
    env.reset(seed=[1])
    scene = scene_class(env)
    scene.begin(task)
    return scene
