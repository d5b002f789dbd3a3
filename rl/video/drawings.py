"""2D navigation and the CT-graph, drawn."""

import math

import numpy as np
from matplotlib.colors import to_rgb
from PIL import Image, ImageDraw

from rl.envs.ctgraph.environment import CRASH, DECISION, HOME, LEAF, WAIT
from rl.envs.navigation import GOAL_RANGE
from rl.plots import style
from rl.plots.trajectories import places, positions
from rl.video.film import HEIGHT, WIDTH, signed

RECENT = 8  # last places of a path in 2D navigation, drawn darker
FINER = 3  # drawn this many times larger, then shrunk, for smooth lines
STATES = {HOME: "home", WAIT: "wait", DECISION: "decision", LEAF: "leaf", CRASH: "crash"}


def colour(name, lightness=0.0):
    """A colour of matplotlib's as RGB bytes, made lighter."""
    return tuple(round(255 * (part + (1 - part) * lightness)) for part in to_rgb(name))


BLUE, RED, GREY, BLACK = (colour(name) for name in (style.BLUE, style.VERMILION, style.GREY, style.BLACK))
LIGHT = colour(style.BLUE, 0.6)
PALE, PAPER = colour(style.GREY, 0.7), colour("white")


class _Sheet:
    """A picture to draw on, in coordinates of its own; lengths of strokes and marks are pixels of the result."""

    def __init__(self, centre, scale):
        self.centre, self.scale = np.array(centre), np.array(scale)
        self.image = Image.new("RGB", (FINER * WIDTH, FINER * HEIGHT), PAPER)
        self.draw = ImageDraw.Draw(self.image)

    def at(self, place):
        """A place in pixels; y goes upwards."""
        x, y = (np.asarray(place, float) - self.centre) * self.scale
        return FINER * (WIDTH / 2 + x), FINER * (HEIGHT / 2 - y)

    def line(self, path, colour, width):
        self.draw.line([self.at(place) for place in path], colour, round(FINER * width), joint="curve")

    def dot(self, place, colour, radius):
        self.draw.circle(self.at(place), FINER * radius, colour, PAPER, FINER)

    def cross(self, place, colour, radius, width):
        x, y = self.at(place)
        radius *= FINER
        for slope in (-1, 1):
            self.draw.line((x - radius, y - slope * radius, x + radius, y + slope * radius), colour, FINER * width)

    def star(self, place, colour, radius):
        x, y = self.at(place)
        points = []
        for corner in range(10):
            length, angle = FINER * radius * (0.4 if corner % 2 else 1.0), math.pi * (corner / 5 - 0.5)
            points.append((x + length * math.cos(angle), y + length * math.sin(angle)))
        self.draw.polygon(points, colour)

    def finished(self):
        """uint8 [HEIGHT, WIDTH, 3]"""
        return np.asarray(self.image.reduce(FINER))


class _Drawing:
    """A scene without resources to free."""

    def __init__(self, env):
        self.env = env

    def prepare(self, panels):
        """Before the first episode, with all that will be shown; nothing depends on it here."""

    def close(self):
        """Nothing to free."""


class Plane(_Drawing):
    """2D navigation: the square of goals, the goal as a star, the path so far; one scale for all panels and steps."""

    reach = 0.65  # half of the height shown, plane units, unless a path leads farther

    def prepare(self, panels):
        """Choose a scale that shows all paths."""
        paths = [positions(*(values[0, :, 0] for values in (panel.observations, panel.actions, panel.mask)))
                for panel in panels]  # fmt: skip
        self.reach = max(self.reach, 1.1 * float(np.abs(np.concatenate(paths)).max()))

    def begin(self, task):
        """Take over the task of a new episode."""
        self.goal = task["goal"]
        self.path = [self.env.positions[0].copy()]

    def follow(self):
        """Take note of the state after a step."""
        self.path.append(self.env.positions[0].copy())

    def view(self):
        """(picture, distance from the goal)"""
        sheet = _Sheet((0, 0), (HEIGHT / 2 / self.reach,) * 2)
        corners = [(x * GOAL_RANGE, y * GOAL_RANGE) for x, y in ((-1, -1), (-1, 1), (1, 1), (1, -1), (-1, -1))]
        sheet.line(corners, PALE, 1)
        sheet.cross((0, 0), GREY, 4, 1)
        if len(self.path) > 1:
            sheet.line(self.path, LIGHT, 1.5)
            sheet.line(self.path[-RECENT:], BLUE, 1.5)
        sheet.star(self.goal, RED, 9)
        sheet.dot(self.path[-1], BLUE, 5)
        return sheet.finished(), f"distance {signed(math.dist(self.path[-1], self.goal))}"


class Tree(_Drawing):
    """CT-graph: the tree, the goal leaf as a star, the path so far. A wait state lies before its node."""

    def __init__(self, env):
        super().__init__(env)
        config = env.config
        self.branching, self.depth = config.branching, config.depth
        self.places = places(config.depth, config.branching)

    def begin(self, task):
        """Take over the task of a new episode."""
        self.goal = self.env.first_leaf + task["leaf"]
        self.path = [self._above(0)]

    def follow(self):
        """Take note of the state after a step."""
        state, node = int(self.env.state_types[0]), int(self.env.nodes[0])
        if state == WAIT:
            self.path.append(0.45 * self._above(node) + 0.55 * self.places[node])
        elif state in (DECISION, LEAF):
            self.path.append(self.places[node])

    def view(self):
        """(picture, the state's type)"""
        sheet = _Sheet((0.5, 0.5 - 0.5 * self.depth), (WIDTH - 24, (HEIGHT - 56) / (self.depth + 1)))
        home = self._above(0)
        sheet.line([home, self.places[0]], PALE, 2)
        for node in range(1, len(self.places)):
            sheet.line([self._above(node), self.places[node]], PALE, 2)
        for node, place in enumerate(self.places):
            sheet.dot(place, GREY if node < self.env.first_leaf else PALE, 4)
        sheet.dot(home, GREY, 4)
        sheet.star(self.places[self.goal], RED, 10)
        state = int(self.env.state_types[0])
        if len(self.path) > 1:
            sheet.line(self.path, BLUE, 3)
        if state == CRASH:
            sheet.cross(self.path[-1], RED, 7, 3)
        else:
            sheet.dot(home if state == HOME else self.path[-1], BLUE, 7)
        return sheet.finished(), STATES[state]

    def _above(self, node):
        """Where the edge to a node begins: its parent, or home."""
        return self.places[(node - 1) // self.branching] if node else self.places[0] + (0.0, 1.0)
