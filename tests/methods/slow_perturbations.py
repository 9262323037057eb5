"""The perturbation methods written a second time: one image, one mask, one forward pass at a time, plain loops.

`f` is a network, [1,3,H,W] -> logits [1,K]; x one image [3,H,W]; a one case's activations [C,h,w]; c the class. Each
returns the map before its final ReLU.
"""

import math

import networks
import numpy as np
import torch
from torch.nn import functional as F


def up(a, x, corners=False):
    return F.interpolate(a[None, None], size=x.shape[1:], mode="bilinear", align_corners=corners)[0, 0]


def scaled(m):
    return (m - m.min()) / (m.max() - m.min())


def logit(f, x, c):
    with torch.no_grad():
        return f(x[None])[0, c]


def probability(f, x, c):
    with torch.no_grad():
        return f(x[None])[0].softmax(0)[c]


def live(a):
    return [one for one in a if one.max() != one.min()]


def score_cam(f, x, a, c, corners=False, scale_first=False):
    """Wang et al. 2020, algorithm 1, the baseline's score included."""
    scores = []
    for one in live(a):
        mask = up(scaled(one), x) if scale_first else scaled(up(one, x, corners))
        scores.append(logit(f, mask * x, c) - logit(f, torch.zeros_like(x), c))
    alpha = torch.stack(scores).exp()
    return sum(w * one for w, one in zip(alpha / alpha.sum(), live(a)))


def score_cam_code(f, x, a, c):
    """haofanwang/Score-CAM."""
    return sum(probability(f, scaled(up(one, x)) * x, c) * one for one in live(a))


def is_cam(f, x, a, c, steps=10, scale_first=False, score=logit):
    scores = []
    for one in live(a):
        mask, shown, found = up(scaled(one), x) if scale_first else scaled(up(one, x)), torch.zeros_like(x), []
        for i in range(1, steps + 1):
            shown = shown + mask * x * i / steps
            found.append(score(f, shown, c))
        scores.append(sum(found) / steps)
    return combined(scores, live(a), score)


def ss_cam(f, x, a, c, generator, samples, sigma, score=logit):
    """Noise on the masks (score: logit), or on the masked images as the authors' code has it (score: probability)."""
    scores = []
    for one in live(a):
        mask, found = scaled(up(one, x)), []
        for _ in range(samples):
            if score is logit:
                noisy = (mask + sigma * torch.randn(mask.shape, generator=generator).to(x)) * x
            else:
                deviation = (sigma / ((mask * x).max() - (mask * x).min())) ** 2
                noisy = mask * x + deviation * torch.randn(x.shape, generator=generator).to(x)
            found.append(score(f, noisy, c))
        scores.append(sum(found) / samples)
    return combined(scores, live(a), score)


def combined(scores, channels, score):
    weights = torch.stack(scores)
    weights = weights.softmax(0) if score is logit else weights
    return sum(w * one for w, one in zip(weights, channels))


def blurred(x, sigma, radius):
    """Every pixel a sum over its square window, mirrored at the border."""
    steps = np.arange(-radius, radius + 1)
    kernel = np.exp(-(steps**2) / (2 * sigma**2))
    kernel = np.outer(kernel, kernel) / kernel.sum() ** 2
    wide = np.pad(x.numpy(), ((0, 0), (radius, radius), (radius, radius)), mode="reflect")
    out = np.zeros(x.shape)
    for i in range(x.shape[1]):
        for j in range(x.shape[2]):
            out[:, i, j] = (wide[:, i : i + 2 * radius + 1, j : j + 2 * radius + 1] * kernel).sum((1, 2))
    return torch.from_numpy(out).to(x)


def group_cam(f, x, a, g, c, groups=32, percentile=70, released=False):
    """wofmanaf/Group-CAM at the input's resolution, as first released or as last."""
    soft, total = blurred(x, 50, 25), torch.zeros(x.shape[1:]).to(x)
    products = g.mean((1, 2), keepdim=True) * a
    for group in products.chunk(groups):
        m = group.sum(0).relu()
        if not released:
            m = torch.where(m > np.percentile(m.numpy(), percentile), m, torch.zeros_like(m))
        m = up(m, x)
        if m.max() == m.min():
            continue
        gain = probability(f, scaled(m) * x + (1 - scaled(m)) * soft, c) - probability(f, soft, c)
        total = total + (max(gain, 0) * m if released else gain * scaled(m))
    return total


def ablation_cam(head, a, c):
    """Desai and Ramaswamy 2020, eq. 4 and 5."""
    y, total = logit(head, a, c), torch.zeros(a.shape[1:]).to(a)
    for k in range(len(a)):
        without = a.clone()
        without[k] = 0
        total += (y - logit(head, without, c)) / y * a[k]
    return total


def recipro_cam(head, a, c, gaussian=False):
    """sybyun/ReciproCAM, before its min-max."""
    out, weights = torch.zeros(a.shape[1:]).to(a), (1 / 4, 1 / 2, 1 / 4)
    for i in range(a.shape[1]):
        for j in range(a.shape[2]):
            alone = torch.zeros_like(a)
            alone[:, i, j] = a[:, i, j]
            for di, dj in ((di, dj) for di in (-1, 0, 1) for dj in (-1, 0, 1) if gaussian):
                if 0 <= i + di < a.shape[1] and 0 <= j + dj < a.shape[2]:
                    alone[:, i + di, j + dj] = a[:, i, j] * weights[di + 1] * weights[dj + 1]
            out[i, j] = probability(head, alone, c)
    return out


def opti_cam(f, x, a, c, steps, rate=0.1, released=False):
    """Adam written out; released: as hanwei0912/OptiCAM goes on and ends, and black where the mask is 0."""
    black = networks.black(a)
    a = a.relu()
    u, m, v = (torch.zeros(len(a), dtype=a.dtype) for _ in range(3))
    best, found = -math.inf, None
    for t in range(1, steps + 2):
        u = u.detach().requires_grad_()
        s = sum(w * one for w, one in zip(u.softmax(0), a))
        mask = scaled(up(s, x))
        score = f((mask * x + (1 - mask) * black if released else mask * x)[None])[0, c]
        if released:
            found = s.detach()
            if (t - 1) % max(steps // 10, 1) == 0:
                if score < best:
                    return found
                best = score.item()
        elif score > best:
            best, found = score.item(), s.detach()
        (g,) = torch.autograd.grad(-score, u)
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g**2
        u = u.detach() - rate * (m / (1 - 0.9**t)) / ((v / (1 - 0.999**t)).sqrt() + 1e-8)
    return found


def cut(one):
    low, high = (torch.from_numpy(np.asarray(np.percentile(one.numpy(), q))).to(one) for q in (0.1, 99.9))
    return ((one - low) / max(high, 1e-12)).clip(0, 1)


def poly_cam(f, x, layers, c, variant="plus_minus", released=False):
    """aenglebert/polycam, or with min-max for its percentiles; layers: activations [C,h,w], first to last."""
    result = None
    for a in reversed(layers):
        total = torch.zeros(a.shape[1:]).to(a)
        for one in a if released else live(a):
            mask = up(cut(one) if released else scaled(one), x)
            gain = probability(f, mask * x, c)
            loss = probability(f, x, c) - probability(f, (1 - mask) * x, c)
            weight = {"plus": gain, "minus": loss, "plus_minus": gain + loss}[variant]
            total += max(weight, 0) * one
        total = total.relu()
        if result is None:
            result = total
        else:
            local = up(up(total, result[None]), total[None])
            nothing = total / 1e-12 if released else torch.zeros_like(total)
            total = torch.where(local == 0, nothing, total / local)
            result = total * up(result, total[None])
    return result


def occlusion(f, x, c, side, step, fill=0.0):
    fallen, times = torch.zeros(x.shape[1:]).to(x), torch.zeros(x.shape[1:]).to(x)
    y = 0
    while True:
        left = 0
        while True:
            covered = x.clone()
            covered[:, y : y + side, left : left + side] = fill
            fallen[y : y + side, left : left + side] += logit(f, x, c) - logit(f, covered, c)
            times[y : y + side, left : left + side] += 1
            if left + side >= x.shape[2]:
                break
            left += step
        if y + side >= x.shape[1]:
            break
        y += step
    return fallen / times


def rise_masks(count, cells, keep, size, generator):
    """Petsiuk et al. 2018, sec. 3.2, drawn in the same order as ours."""
    grids = (torch.rand(count, cells, cells, generator=generator) < keep).float()
    side = [math.ceil(length / cells) for length in size]
    down, right = (torch.randint(0, s, (count, 1), generator=generator)[:, 0].tolist() for s in side)
    large = F.interpolate(grids[:, None], [(cells + 1) * s for s in side], mode="bilinear", align_corners=False)[:, 0]
    return [one[i : i + size[0], j : j + size[1]] for one, i, j in zip(large, down, right)]


def rise(f, x, c, generator, count, cells=7, keep=0.5):
    total = torch.zeros(x.shape[1:]).to(x)
    for mask in rise_masks(count, cells, keep, x.shape[1:], generator):
        total += probability(f, mask.to(x) * x, c) * mask.to(x)
    return total / (count * keep)
