"""Maps to find boxes in: uint8 [H,W]."""

import cv2
import numpy as np


def quantise(heatmap):
    return ((heatmap - heatmap.min()) / np.ptp(heatmap) * 255).astype(np.uint8)


def upsampled(rng, grid, size=(224, 224), kernel=cv2.INTER_CUBIC):
    small = rng.random((grid, grid)).astype(np.float32)
    return quantise(cv2.resize(small, size[::-1], interpolation=kernel))


def blurred(rng, size=(224, 224), sigma=6.0):
    return quantise(cv2.GaussianBlur(rng.random(size).astype(np.float32), (0, 0), sigma))


def noise(rng, size, values=256):
    """Pixel noise of so many values between 0 and 255."""
    return np.linspace(0, 255, values).astype(np.uint8)[rng.integers(0, values, size)]


def small(rng):
    """Anything small: plateaus, two values, sparse pixels, 1xN."""
    size = tuple(rng.integers(1, 25, 2))
    found = noise(rng, size, values=int(rng.choice([2, 3, 4, 8, 256])))
    return np.where(rng.random(size) < rng.choice([0.3, 0.6, 1.0]), found, 0).astype(np.uint8)


def rings(size=33, inset=0):
    """Square rings in rings, each of its own level, with gaps of level 0 between them."""
    found = np.zeros((size, size), np.uint8)
    for i, level in zip(range(inset, size // 2, 2), (90, 200, 140, 255, 30, 220, 90, 60, 70)):
        found[i : size - i, i : size - i] = level
        found[i + 1 : size - i - 1, i + 1 : size - i - 1] = 0
    return found


def lines():
    """Lines of one pixel, straight and diagonal, which have no polygon area: all equal, order decides."""
    found = np.zeros((20, 30), np.uint8)
    found[2, 3:12] = 100
    found[5:18, 4] = 100
    found[np.arange(6, 16), np.arange(10, 20)] = 150
    found[12, 24] = found[18, 9] = 100
    found[0, 20:] = 80
    found[19, :7] = 80
    return found


def diamonds():
    """Components whose polygon equals that of their hole, one with a tail, and holes that touch at corners."""
    found = np.zeros((16, 24), np.uint8)
    for y, x in ((3, 3), (3, 9), (9, 5), (10, 14), (11, 15)):
        for dy, dx in ((0, 1), (1, 0), (0, -1), (-1, 0)):
            found[y + dy, x + dx] = 120
    found[9, 6:12] = 120
    found[2:7, 15:21] = 200
    found[3, 16] = found[4, 17] = found[5, 18] = 0
    return found


def ring_and_square():
    """Two components of equal polygons, one with a hole."""
    found = np.zeros((12, 20), np.uint8)
    found[2:9, 11:18] = found[3:10, 2:9] = 60
    found[4:9, 3:8] = 0
    return found


def special():
    """The maps somebody thought of, by name."""
    ramp = np.arange(256, dtype=np.uint8).reshape(8, 32)
    frame = rings(24)
    return {
        "black": np.zeros((9, 12), np.uint8),
        "white": np.full((9, 12), 255, np.uint8),
        "grey": np.full((9, 12), 77, np.uint8),
        "pixel": np.array([[5]], np.uint8),
        "row": np.array([[0, 9, 9, 0, 4, 255, 4, 9, 0, 9]], np.uint8),
        "column": np.array([[0, 9, 9, 0, 4, 255, 4, 9, 0, 9]], np.uint8).T,
        "ramp": ramp,
        "ramp_down": ramp[::-1, ::-1],
        "rings": rings(33, inset=1),
        "rings_at_frame": frame,
        "rings_inverted": 255 - frame,
        "rings_oblong": frame[:, :15],
        "lines": lines(),
        "lines_inverted": 255 - lines(),
        "diamonds": diamonds(),
        "diamonds_mirrored": diamonds()[::-1, ::-1],
        "ring_and_square": ring_and_square(),
        "ring_and_square_mirrored": ring_and_square()[::-1, ::-1],
        "checkerboard": (np.indices((11, 14)).sum(0) % 2 * 200).astype(np.uint8),
        "checkerboard_inverted": (np.indices((11, 14)).sum(0) % 2 * 200 + 55).astype(np.uint8)[:, ::-1],
    }
