"""The CT-graph, drawn: how often each branch of the tree is taken, and films of walks."""

from typing import Any

import numpy as np
from jaxtyping import Float, Shaped, UInt8
from matplotlib import colormaps
from matplotlib.axes import Axes

from rl import drawing
from rl.drawing import BLUE, GREY, HEIGHT, VERMILION, WIDTH, Picture, Recorded, Sheet, rgb
from rl.envs.ctgraph import config as ctgraph_config
from rl.envs.ctgraph.config import CTGraphConfig
from rl.envs.ctgraph.environment import CRASH, DECISION, HOME, LEAF, WAIT, CTGraph

COLUMNS = ("goal_leaf", "updates", "node", "share_of_episodes")
MANY = 4  # leaves, beyond which there is room for the share at the goal alone
STATES = {HOME: "home", WAIT: "wait", DECISION: "decision", LEAF: "leaf", CRASH: "crash"}


def visits(
    node: Shaped[np.ndarray, "T ..."], state_type: Shaped[np.ndarray, "T ..."], mask: Shaped[np.ndarray, "T ..."],
    num_nodes: int,
) -> tuple[Float[np.ndarray, "num_nodes"], float]:  # fmt: skip
    """The share of episodes that reach each node, and the share that crash. Who crashes while waiting before a node has
    not reached it.

    Args:
        node, state_type: after each step; any number of axes for episodes.
        mask: 1 at the steps that were taken.
        num_nodes: of the tree.
    """
    node, state_type, mask = (values.reshape(len(node), -1) for values in (node, state_type, mask))
    taken, arrived = mask > 0, np.isin(state_type, (DECISION, LEAF))
    reached = np.stack([(taken & arrived & (node == number)).any(axis=0).mean() for number in range(num_nodes)])
    reached[0] = 1.0  # home
    return reached, float((taken & (state_type == CRASH)).any(axis=0).mean())


def places(depth: int, branching: int) -> Float[np.ndarray, "nodes 2"]:
    """Where to draw the nodes: the root at the top, the leaves at equal distances."""
    levels = [(branching**level, level) for level in range(depth + 1)]
    return np.array([((place + 0.5) / width, -level) for width, level in levels for place in range(width)])


def trajectories(recorded: Recorded) -> Picture:
    """A row a goal leaf, all tasks with that leaf together; a column a number of updates."""
    assert recorded.config_path is not None  # no CT-graph is without
    tree, tasks = ctgraph_config.read(recorded.config_path), recorded.tasks
    spots = places(tree.depth, tree.branching)
    leaves = sorted(tasks[task]["leaf"] for task in recorded.chosen)
    figure, axes = drawing.task_panels(len(leaves), recorded.stages, width=1.5, height=1.25)
    rows: list[tuple] = []
    for leaf, panels in zip(leaves, axes, strict=True):
        alike = [number for number, task in enumerate(tasks) if task["leaf"] == leaf]
        for updates, panel in enumerate(panels):
            found = [recorded.episodes[name][alike][..., updates] for name in ("info.node", "info.state_type", "mask")]
            node, state_type, mask = (np.moveaxis(values, 1, 0) for values in found)
            reached, crashed = visits(node, state_type, mask, len(spots))
            draw_tree(panel, tree, spots, leaf, reached, crashed)
            rows += [(leaf, updates, node, share) for node, share in enumerate(reached.tolist())]
            rows.append((leaf, updates, "crash", crashed))
        panels[0].text(-0.12, 0.5, f"goal: leaf {leaf}", rotation=90, va="center", transform=panels[0].transAxes,
                       fontsize=8 if len(leaves) <= MANY else 6)  # fmt: skip
        if panels[0].get_subplotspec().is_first_row():
            drawing.label_columns(panels, range(recorded.stages), 4)
    figure.supxlabel("width of a branch and number at a leaf: share of episodes; star: goal leaf", fontsize=8)
    caption = f"{len(leaves)} goal leaves, {recorded.episodes['mask'].shape[2]} episodes of each of {len(tasks)} tasks"
    return Picture(figure, f"{caption}, tasks of a leaf together", (COLUMNS, rows))


def draw_tree(
    panel: Axes, tree: CTGraphConfig, spots: Float[np.ndarray, "nodes 2"], leaf: int,
    reached: Float[np.ndarray, "nodes"], crashed: float,
) -> None:  # fmt: skip
    """One tree: a branch is as wide and as dark as it is often taken, the goal leaf is a star."""
    ramp = colormaps["Blues"]
    for node in range(1, len(spots)):
        parent = (node - 1) // tree.branching
        panel.plot(*spots[[parent, node]].T, color=ramp(0.2 + 0.8 * reached[node]), linewidth=0.5 + 4 * reached[node],
                   solid_capstyle="round")  # fmt: skip
    panel.plot(*spots.T, "o", color=GREY, markersize=min(2.5, 20 / tree.num_leaves))
    goal = tree.num_decisions + leaf
    panel.plot(*spots[goal], "*", color=VERMILION, markersize=9, markeredgecolor="white", markeredgewidth=0.5)
    for node in range(tree.num_decisions, len(spots)) if tree.num_leaves <= MANY else [goal]:
        panel.annotate(f"{reached[node]:.0%}", spots[node], (0, -6), textcoords="offset points", ha="center", va="top",
                       fontsize=6)  # fmt: skip
    panel.set(xlim=(-0.05, 1.05), ylim=(-tree.depth - 0.45, 0.15))
    panel.set_axis_off()
    panel.text(1.02, 0.92, f"crash {crashed:.0%}", fontsize=6, ha="right", transform=panel.transAxes)
    for text in panel.texts:
        text.set_in_layout(False)  # small trees are not to make room for it


class Scene(drawing.Scene):
    """The tree, the goal leaf as a star, the path so far. A wait state lies before its node."""

    def __init__(self, env: CTGraph):
        super().__init__(env)
        self.branching, self.depth = env.config.branching, env.config.depth
        self.places = places(self.depth, self.branching)

    def begin(self, task: dict[str, Any]) -> None:
        """Start a path at home."""
        self.goal = self.env.first_leaf + task["leaf"]
        self.path = [self._above(0)]

    def follow(self) -> None:
        """Extend the path."""
        state, node = int(self.env.state_types[0]), int(self.env.nodes[0])
        if state == WAIT:
            self.path.append(0.45 * self._above(node) + 0.55 * self.places[node])
        elif state in (DECISION, LEAF):
            self.path.append(self.places[node])

    def view(self) -> tuple[UInt8[np.ndarray, "H W 3"], str]:
        """The tree; the type of the present state."""
        sheet = Sheet((0.5, 0.5 - 0.5 * self.depth), (WIDTH - 24, (HEIGHT - 56) / (self.depth + 1)))
        blue, red, grey, pale = rgb(BLUE), rgb(VERMILION), rgb(GREY), rgb(GREY, 0.7)
        home = self._above(0)
        for node, place in enumerate(self.places):
            sheet.line([self._above(node), place], pale, 2)
        for node, place in enumerate(self.places):
            sheet.dot(place, grey if node < self.env.first_leaf else pale, 4)
        sheet.dot(home, grey, 4)
        sheet.star(self.places[self.goal], red, 10)
        state = int(self.env.state_types[0])
        if len(self.path) > 1:
            sheet.line(self.path, blue, 3)
        if state == CRASH:
            sheet.cross(self.path[-1], red, 7, 3)
        else:
            sheet.dot(home if state == HOME else self.path[-1], blue, 7)
        return sheet.finished(), STATES[state]

    def _above(self, node: int) -> Float[np.ndarray, "2"]:
        """Where the edge to a node begins: its parent, or home."""
        return self.places[(node - 1) // self.branching] if node else self.places[0] + (0.0, 1.0)
