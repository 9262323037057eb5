"""The papers' formulas, written as loops over channels k and places i, j: slow, obvious, float64, no epsilon anywhere.

Each takes one case's activations A [C,h,w] and gradients G [C,h,w] and returns the map [h,w] before its final ReLU.
"""

import numpy as np


def places(a):
    return [(i, j) for i in range(a.shape[1]) for j in range(a.shape[2])]


def weighted(a, weights):
    out = np.zeros(a.shape[1:])
    for k in range(len(a)):
        for i, j in places(a):
            out[i, j] += weights[k] * a[k, i, j]
    return out


def cam(a, class_weights):
    """Zhou et al. 2016, eq. 2."""
    return weighted(a, class_weights)


def grad_cam(a, g):
    """Selvaraju et al. 2017, eq. 1 and 2."""
    z = a.shape[1] * a.shape[2]
    return weighted(a, [sum(g[k, i, j] for i, j in places(a)) / z for k in range(len(a))])


def grad_cam_pp(a, g):
    """Chattopadhay et al. 2018, eq. 5 with the coefficients of eq. 19, for Y = exp(S), up to its factor exp(S)."""
    weights = []
    for k in range(len(a)):
        total, weight = sum(a[k, i, j] for i, j in places(a)), 0.0
        for i, j in places(a):
            if g[k, i, j] != 0:
                alpha = g[k, i, j] ** 2 / (2 * g[k, i, j] ** 2 + total * g[k, i, j] ** 3)
                weight += alpha * max(g[k, i, j], 0)
        weights.append(weight)
    return weighted(a, weights)


def x_grad_cam(a, g):
    """Fu et al. 2020, eq. 8."""
    weights = []
    for k in range(len(a)):
        total = sum(a[k, i, j] for i, j in places(a))
        weights.append(sum(a[k, i, j] / total * g[k, i, j] for i, j in places(a)))
    return weighted(a, weights)


def hires_cam(a, g):
    """Draelos and Carin 2020, eq. 3."""
    out = np.zeros(a.shape[1:])
    for k in range(len(a)):
        for i, j in places(a):
            out[i, j] += g[k, i, j] * a[k, i, j]
    return out


def layer_cam(a, g):
    """Jiang et al. 2021, eq. 6 and 7: the ReLU is on the gradient."""
    out = np.zeros(a.shape[1:])
    for k in range(len(a)):
        for i, j in places(a):
            out[i, j] += max(g[k, i, j], 0) * a[k, i, j]
    return out


def elementwise_grad_cam(a, g):
    """The ReLU is on each product."""
    out = np.zeros(a.shape[1:])
    for k in range(len(a)):
        for i, j in places(a):
            out[i, j] += max(g[k, i, j] * a[k, i, j], 0)
    return out


def eigen_cam(a, g=None, center=False):
    """Muhammad and Yeasin 2020, eq. 4 and 5, by the full singular value decomposition of A as an [hw, C] matrix.

    The paper leaves the sign open; here it is the one with which the map agrees with the activations' energy.
    """
    matrix = a.reshape(len(a), -1).T
    energy = (matrix**2).sum(1)
    if center:
        matrix = matrix - matrix.mean(0)
    _, _, right = np.linalg.svd(matrix, full_matrices=True)
    projected = matrix @ right[0]
    return (projected if projected @ energy >= 0 else -projected).reshape(a.shape[1:])


def eigen_cam_centered(a, g=None):
    return eigen_cam(a, center=True)


GRADIENT = (grad_cam, grad_cam_pp, x_grad_cam, hires_cam, layer_cam, elementwise_grad_cam)
