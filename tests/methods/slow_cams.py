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


def grad_cam_pp_code(a, g, s=0.0):
    """Chattopadhay et al. 2018, the released code line by line, with its factor exp(s) of a score s."""
    first, second, third = (np.exp(s) * g**power for power in (1, 2, 3))
    weights = []
    for k in range(len(a)):
        total, alphas = sum(a[k, i, j] for i, j in places(a)), {}
        for i, j in places(a):
            below = 2 * second[k, i, j] + total * third[k, i, j]
            alphas[i, j] = second[k, i, j] / (below if below != 0 else 1)
        constant = sum(alpha for place, alpha in alphas.items() if first[k][place] > 0)
        constant = constant if constant != 0 else 1
        weights.append(sum(alpha / constant * max(first[k][place], 0) for place, alpha in alphas.items()))
    return weighted(a, weights)


def smooth_grad_cam_pp(a, gradients, numerator="first"):
    """Omeiza et al. 2019: gradients [n,C,h,w] of noisy images, a of the image itself."""
    n, weights = len(gradients), []
    for k in range(len(a)):
        total, weight = sum(a[k, i, j] for i, j in places(a)), 0.0
        for i, j in places(a):
            d1, d2, d3 = (sum(g[k, i, j] ** power for g in gradients) / n for power in (1, 2, 3))
            above, below = (d1 if numerator == "first" else d2), 2 * d2 + total * d3
            weight += above / below * max(d1, 0) if below != 0 else 0
        weights.append(weight)
    return weighted(a, weights)


def counterfactual_grad_cam(a, g):
    """Selvaraju et al. 2020, eq. 3."""
    return grad_cam(a, -g)


def grad_cam_gmp(a, g):
    return weighted(a, [max(g[k, i, j] for i, j in places(a)) for k in range(len(a))])


def grad_cam_abs(a, g):
    return grad_cam(a, abs(g))


def eigen_grad_cam(a, g, center=True):
    """As `eigen_cam`, of a g."""
    return eigen_cam(a * g, center=center)


def seg_eigen_cam(a, g):
    """Chung and Ying 2025, eq. 10 to 13."""
    found = eigen_cam(a * abs(g), center=True)
    return -found if abs(found.min()) > abs(found.max()) else found


def fem(a, g=None, deviations=2.0):
    """Fuad et al. 2020."""
    out = np.zeros(a.shape[1:])
    for channel in a:
        mean = sum(channel.flat) / channel.size
        spread = (sum((x - mean) ** 2 for x in channel.flat) / channel.size) ** 0.5
        for place in np.ndindex(*out.shape):
            out[place] += mean if channel[place] > mean + deviations * spread else 0
    return out


def kpca_cam(a, g=None, kernel="sigmoid", gamma=None):
    """Kernel principal components by their definition: the centred kernel matrix, its first eigenvector."""
    points = a.reshape(len(a), -1).T
    energy = (points**2).sum(1)
    points = points - points.mean(0)
    gamma = 1 / len(a) if gamma is None else gamma
    kernels = {
        "sigmoid": lambda x, y: np.tanh(gamma * x @ y + 1),
        "rbf": lambda x, y: np.exp(-gamma * ((x - y) ** 2).sum()),
        "linear": lambda x, y: x @ y,
    }
    matrix = np.array([[kernels[kernel](x, y) for y in points] for x in points])
    away = np.eye(len(points)) - 1 / len(points)
    values, vectors = np.linalg.eigh(away @ matrix @ away)
    found = vectors[:, -1] * max(values[-1], 0) ** 0.5
    return (found if found @ energy >= 0 else -found).reshape(a.shape[1:])


def layer_cam_fused(stages, gamma=2.0, deep=2):
    """Jiang et al. 2021, of stages [(a, g), ...], shallow ones first; grids differ by whole factors."""
    fused = np.zeros(stages[0][0].shape[1:])
    for n, (a, g) in enumerate(stages):
        found = np.maximum(layer_cam(a, g), 0)
        found = found / found.max()
        if n < len(stages) - deep:
            found = np.tanh(gamma * found)
        fused = np.maximum(fused, enlarged(found, fused.shape))
    return fused


def refine_cam(stages, size):
    """Domeniconi et al. 2026."""
    product = np.ones(size)
    for a, g in stages:
        product = product * scaled(enlarged(scaled(np.maximum(grad_cam_pp(a, g), 0)), size))
    return product


def scaled(values):
    return (values - values.min()) / (values.max() - values.min())


def enlarged(values, size):
    """Bilinear, half-pixel centres, the border repeated."""
    out = np.zeros(size)
    for i, j in np.ndindex(*size):
        weight = {}
        for axis, (n, old, new) in enumerate(zip((i, j), values.shape, size)):
            at = min(max((n + 0.5) * old / new - 0.5, 0), old - 1)
            low = int(at)
            weight[axis] = [(low, 1 - at + low), (min(low + 1, old - 1), at - low)]
        out[i, j] = sum(values[y, x] * p * q for y, p in weight[0] for x, q in weight[1])
    return out


MORE = (grad_cam_pp_code, counterfactual_grad_cam, grad_cam_gmp, grad_cam_abs, eigen_grad_cam, seg_eigen_cam, fem)
