"""Where the agent went, before and after each inner update: paths, visited branches, distances."""

import math

import numpy as np
from matplotlib import colormaps

from rl.envs.ctgraph.environment import CRASH
from rl.envs.navigation import GOAL_RANGE, MAX_MOVE
from rl.errors import UserError
from rl.evaluation import runs
from rl.evaluation.task_choice import distinct
from rl.plots import style

CHEETAH_X = 17  # place of the torso's x in an observation of Half-Cheetah
CHEETAH_STEP = 0.05  # s, between two observations


def trajectories(folder, output, most_tasks):
    """Draw an evaluation's recorded episodes: PNG and PDF, and for the CT-graph the frequencies as CSV.

    Args:
        folder: path of an evaluation.
        output: path of the files without suffix.
        most_tasks: how many tasks to show.

    Returns:
        (paths written, lines of text to print)

    Raises:
        UserError: bad input.
    """
    evaluation = runs.read_evaluation(folder)
    name = evaluation.config.env_name
    chosen = distinct(evaluation.tasks)[:most_tasks]
    if name == "2DNavigation-v0":
        return style.save(navigation(evaluation, chosen), output), [shown(evaluation, chosen, "the first episode")]
    if name == "CTgraphEnvGoalChange-v0":
        return graph(evaluation, chosen, output)
    if name.startswith("HalfCheetah"):
        return style.save(cheetah(evaluation, chosen), output), [shown(evaluation, chosen)]
    raise UserError(
        f"{folder}: no picture of trajectories for {name}; expected 2DNavigation-v0, CTgraphEnvGoalChange-v0 or "
        "a Half-Cheetah"
    )


def shown(evaluation, chosen, what="{} episodes"):
    """What a picture shows, in words."""
    tasks, _, episodes, updates = evaluation.episodes["mask"].shape
    return f"{len(chosen)} of {tasks} tasks, {what.format(episodes)} of each after 0 to {updates - 1} updates"


def shades(updates):
    """A colour for each number of updates: grey before adaptation, then from dark to light."""
    ramp = colormaps["viridis"](np.linspace(0.0, 0.85, max(updates - 1, 1)))
    return [style.GREY, *ramp[: updates - 1]]


def update_label(updates):
    """A number of updates, for legends and titles."""
    return {0: "before adaptation", 1: "after 1 update"}.get(updates, f"after {updates} updates")


def grid(count, columns=3, **options):
    """A figure of `count` panels in rows: (figure, list of axes); what is left of the last row stays empty."""
    columns = min(columns, count)
    figure, axes = style.panels(math.ceil(count / columns), columns, width=2.3, height=2.3, **options)
    for panel in axes.flat[count:]:
        panel.set_visible(False)
    return figure, list(axes.flat[:count])


def positions(observations, actions, mask):
    """The places of one episode of 2D navigation, the last one included: [steps + 1, 2]."""
    taken = int(mask.sum())
    last = observations[taken - 1] + np.clip(actions[taken - 1], -MAX_MOVE, MAX_MOVE)
    return np.concatenate([observations[:taken], last[None]])


@style.printed
def navigation(evaluation, chosen):
    """2D navigation: a row a task, titled with its goal; a column a number of updates; in each panel one episode."""
    episodes = evaluation.episodes
    count = episodes["mask"].shape[3]
    paths = [
        [positions(*(episodes[name][task, :, 0, updates] for name in ("observations", "actions", "mask")))
         for updates in range(count)]
        for task in chosen
    ]  # fmt: skip
    reach = 1.05 * max([GOAL_RANGE] + [float(np.abs(path).max()) for row in paths for path in row])
    figure, axes = style.panels(len(chosen), count, width=1.4, height=1.4, sharex=True, sharey=True)
    axes[0, 0].set(xlim=(-reach, reach), ylim=(-reach, reach))
    for task, row, panels in zip(chosen, paths, axes, strict=True):
        for path, panel in zip(row, panels, strict=True):
            panel.plot(*path.T, color=style.BLUE, linewidth=0.6, label="path of an episode")
            panel.plot(*path[-1], "o", color=style.BLUE, markersize=5, markeredgecolor="white", linestyle="",
                       label="its end")  # fmt: skip
            panel.plot(0, 0, "+", color=style.BLACK, markersize=6, linestyle="", label="start")
            panel.plot(*evaluation.tasks[task]["goal"], "*", color=style.VERMILION, markersize=9,
                       markeredgecolor="white", linestyle="", label="goal")  # fmt: skip
            panel.set_aspect("equal")
        panels[0].set_title(goal(evaluation, task), loc="left")
    label_columns(axes[0], range(count), 18)
    label_edges(axes.flat, "x (plane units)", "y (plane units)")
    style.legend_below(figure)
    return figure


def goal(evaluation, task):
    """What a task asks for, in words: goal 0.31, −0.12; direction +1; velocity +1.5."""
    words = []
    for name, value in evaluation.tasks[task].items():
        numbers = [runs.hundredths(entry) for entry in value] if isinstance(value, list) else [f"{value:+.3g}"]
        words.append(f"{name} {', '.join(numbers)}")
    return ", ".join(words).replace("-", "−")


def label_columns(axes, updates, above):
    """The numbers of updates, written `above` points over the panels of the first row."""
    for panel, number in zip(axes, updates, strict=True):
        panel.annotate(update_label(number), (0.5, 1), (0, above), xycoords="axes fraction", textcoords="offset points",
                       ha="center", fontsize=8)  # fmt: skip


def label_edges(axes, x, y):
    """Labels for the outer axes of a grid alone."""
    for panel in axes:
        panel.set(xlabel=x, ylabel=y)
        panel.label_outer()


@style.printed
def cheetah(evaluation, chosen):
    """Half-Cheetah: the torso's position against time; a panel a task, a thin line an episode, a thick the mean."""
    episodes = evaluation.episodes
    figure, axes = grid(len(chosen), sharex=True, sharey=True)
    count = episodes["mask"].shape[3]
    for panel, task in zip(axes, chosen, strict=True):
        for updates, colour in enumerate(shades(count)):
            mask = episodes["mask"][task, :, :, updates] > 0
            position = np.where(mask, episodes["observations"][task, :, :, updates, CHEETAH_X], np.nan)
            # An episode can end early; the mean goes as far as all of them.
            seconds, common = CHEETAH_STEP * np.arange(len(position)), mask.all(axis=1)
            panel.plot(seconds, position, color=colour, linewidth=0.4, alpha=0.5)
            panel.plot(seconds[common], position[common].mean(axis=1), color=colour, label=update_label(updates))
        panel.set_title(goal(evaluation, task))
    label_edges(axes, "time (s)", "position (m)")
    style.legend_below(figure)
    return figure


def visits(node, state_type, mask, num_nodes):
    """How often the nodes of a CT-graph are reached.

    Args:
        node, state_type: after each step, [steps, episodes] of any number of axes for episodes.
        mask: 1 at the steps that were taken, of the same shape.
        num_nodes: of the tree.

    Returns:
        (share of the episodes that reach each node [num_nodes], share that crash)
    """
    steps = len(node)
    node, state_type, mask = (values.reshape(steps, -1) for values in (node, state_type, mask))
    taken = mask > 0
    reached = np.stack([(taken & (node == number)).any(axis=0).mean() for number in range(num_nodes)])
    reached[0] = 1.0  # home
    return reached, float((taken & (state_type == CRASH)).any(axis=0).mean())


def places(depth, branching):
    """Where to draw the nodes: [nodes, 2], the root at the top, the leaves at equal distances."""
    found = []
    for level in range(depth + 1):
        width = branching**level
        found += [((place + 0.5) / width, -level) for place in range(width)]
    return np.array(found)


def graph(evaluation, chosen, output):
    """CT-graph: a row a goal leaf, a column a number of updates; all tasks with that leaf together."""
    tree, episodes, tasks = evaluation.graph, evaluation.episodes, evaluation.tasks
    nodes = tree.num_decisions + tree.num_leaves
    count = episodes["mask"].shape[3]
    leaves = [tasks[task]["leaf"] for task in chosen]
    shares, rows = {}, []
    for leaf in leaves:
        alike = [number for number, task in enumerate(tasks) if task["leaf"] == leaf]
        for updates in range(count):
            recorded = (episodes[name][alike][..., updates] for name in ("info.node", "info.state_type", "mask"))
            reached, crashed = visits(*(np.moveaxis(values, 1, 0) for values in recorded), nodes)
            shares[leaf, updates] = reached, crashed
            rows += [(leaf, updates, node, share) for node, share in enumerate(reached.tolist())]
            rows.append((leaf, updates, "crash", crashed))
    lines = [f"{len(leaves)} goal leaves, {shown(evaluation, range(len(tasks)))}, tasks of a leaf together"]
    files = style.save(draw_graph(tree, leaves, count, shares), output)
    return [*files, style.save_table(output, ("goal_leaf", "updates", "node", "share_of_episodes"), rows)], lines


@style.printed
def draw_graph(tree, leaves, count, shares):
    """The trees: a branch is as wide and as dark as it is often taken, the goal leaf is a star."""
    figure, axes = style.panels(len(leaves), count, width=1.5, height=1.25)
    spots = places(tree.depth, tree.branching)
    ramp = colormaps["Blues"]
    # The share at a leaf is written where there is room for it.
    room = tree.num_leaves <= 4
    for updates in range(count):
        axes[0, updates].set_title(update_label(updates))
    for row, leaf in zip(axes, leaves, strict=True):
        for updates, panel in enumerate(row):
            reached, crashed = shares[leaf, updates]
            for node in range(1, len(spots)):
                parent = (node - 1) // tree.branching
                panel.plot(*spots[[parent, node]].T, color=ramp(0.2 + 0.8 * reached[node]),
                           linewidth=0.5 + 4 * reached[node], solid_capstyle="round")  # fmt: skip
            panel.plot(*spots.T, "o", color=style.GREY, markersize=2.5)
            goal = tree.num_decisions + leaf
            panel.plot(*spots[goal], "*", color=style.VERMILION, markersize=9, markeredgecolor="white",
                       markeredgewidth=0.5)  # fmt: skip
            written = range(tree.num_decisions, len(spots)) if room else [goal]
            for node in written:
                panel.annotate(f"{reached[node]:.0%}", spots[node], (0, -6), textcoords="offset points", ha="center",
                               va="top", fontsize=6)  # fmt: skip
            panel.set_xlim(-0.05, 1.05)
            panel.set_ylim(-tree.depth - 0.45, 0.15)
            panel.set_axis_off()
            panel.text(1.02, 0.92, f"crash {crashed:.0%}", fontsize=6, ha="right", transform=panel.transAxes)
        row[0].text(-0.12, 0.5, f"goal: leaf {leaf}", rotation=90, va="center", transform=row[0].transAxes)
    figure.supxlabel("width of a branch and number at a leaf: share of episodes; star: goal leaf", fontsize=8)
    return figure
