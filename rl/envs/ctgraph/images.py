"""The image set of a CT-graph: one-hot vectors, or pictures of 12×12 pixels rotated with scikit-image.

All pixels are uint8, in images flattened to P pixels: P = num_images + 1 for vectors, 144 for pictures.
"""

import numpy as np
from jaxtyping import Int, UInt8

from rl.envs.ctgraph.config import CTGraphConfig

SIDE = 12  # pixels
_CHECKERS = 4  # a picture is 4×4 squares of 3×3 pixels
_CUE = slice(SIDE // 2 - 3, SIDE // 2 + 3)  # the central square that shows the reward

# Observation of a pixel, divided once in float64 and rounded once.
LEVELS = (np.arange(256) / 255.0).astype(np.float32)


def high_value(config: CTGraphConfig) -> int:
    """The brightest pixel, which leaves room for the noise: 254 − n."""
    return 254 - config.noise


def cue_pixels(config: CTGraphConfig) -> Int[np.ndarray, "cue"]:
    """Indices of the pixels that show the reward at a leaf."""
    if config.one_dimensional:
        return np.array([config.num_images])
    return np.arange(SIDE * SIDE).reshape(SIDE, SIDE)[_CUE, _CUE].ravel()


def image_set(config: CTGraphConfig) -> UInt8[np.ndarray, "R num_images P"]:
    """All images as they can be read.

    Without noise, R = `config.rotation` for pictures: the whole set at every angle from 0. Otherwise R = 1: noise is
    added before a picture is rotated, so that nothing can be prepared.
    """
    if config.one_dimensional:
        return high_value(config) * np.eye(config.num_images, config.num_images + 1, dtype=np.uint8)[None]
    pictures = _pictures(config)
    angles = range(config.rotation if config.noise == 0 else 1)
    return np.stack([_rotate(pictures, angle) for angle in angles])


def _pictures(config: CTGraphConfig) -> UInt8[np.ndarray, "num_images 144"]:
    """The pictures before any reading: checkers of three greys, each rotated at random."""
    from skimage.transform import rotate

    # The set is part of the definition: the package draws it from numpy's first generator, seeded by the file.
    random = np.random.RandomState(config.image_seed)
    pictures = np.empty((config.num_images, SIDE * SIDE), np.uint8)
    for i in range(config.num_images):
        greys = random.randint(0, 3, size=(_CHECKERS, _CHECKERS)) * high_value(config) / 2
        squares = greys.repeat(SIDE // _CHECKERS, axis=0).repeat(SIDE // _CHECKERS, axis=1)
        pictures[i] = rotate(squares, random.randint(0, 359)).astype(np.uint8).ravel()
    return pictures


def rotate_each(pixels: UInt8[np.ndarray, "N 144"], angles: Int[np.ndarray, "N"]) -> UInt8[np.ndarray, "N 144"]:
    """Rotate picture i by angles[i] degrees."""
    rotated = np.empty_like(pixels)
    for angle in np.unique(angles):
        same = angles == angle
        rotated[same] = _rotate(pixels[same], angle)
    return rotated


def _rotate(pixels: UInt8[np.ndarray, "M 144"], angle: int | np.integer) -> UInt8[np.ndarray, "M 144"]:
    """Rotate all pictures by one angle, in a single call that takes them for channels of one image.

    Bit for bit what `skimage.transform.rotate` makes of each alone: it interpolates channel by channel, but clips to
    the range of the whole image, so the clipping is done here, picture by picture.
    """
    from skimage.transform import rotate

    stack = pixels.astype(np.float64).reshape(-1, SIDE, SIDE)
    turned = rotate(np.moveaxis(stack, 0, -1), angle, clip=False)
    turned = np.moveaxis(turned, -1, 0).reshape(-1, SIDE * SIDE)
    low, high = pixels.min(axis=1, keepdims=True), pixels.max(axis=1, keepdims=True)
    # Where the black outside has come into a picture without black, black stays, and so does all between.
    low = np.where(turned.min(axis=1, keepdims=True) <= 0.0, 0, low)
    return np.clip(turned, low, high).astype(np.uint8)
