"""Seeds scored as segmentations: the label map that an image's heatmaps make, against the masks of its classes.

All scores here are reductions of one curve. A case's curve holds, at each of T levels, how many pixels are true
positives, false positives and false negatives of its class in the label map that the maps of **all** classes of the
image by the same method make together (`regions.seeds`): [3 T]; then the same of the background on the image's first
case, that of the lowest class, and zeros on the others: [6 T] in all. So sums over cases are the data set's counts,
each pixel once, and a bootstrap that draws whole images stays right; one that draws cases would not.

The truth is the masks of the annotation; pixels of `ignore` (VOC's 255) count neither way, nor do those that masks of
two classes claim (as instances that overlap are discarded in torchvision's references). Classes that the image lacks
are never predicted, so false positives are of the image's own classes alone. A class without a pixel in the truth is
scored all the same. Without masks, or where the heatmap of one class is not finite, none of the image's cases of that
method is scored. Images without any class have no case, and their background counts nowhere.

Sweeping costs no more than one level: pixels are counted once by their truth, the class that wins there and the number
of levels that it wins at. Counts are exact up to 2^24 pixels (float32).

With the axis `crf` above 0 the label map is that of a dense conditional random field over the picture
(`regions.crf`; Kraehenbuehl and Koltun 2011), in which the background has the score (1 - highest)^crf (Ahn and Kwak
2018, eq. 1, 4 and 24; their program's defaults are 4 and 32), and no level is read.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from gradcam_bench import heatmaps
from gradcam_bench.regions import crf, seeds
from gradcam_bench.trial import Trial

IGNORED = -1


def seed_miou(trial: Trial) -> tuple[None, Tensor]:
    """Counts at the level `background`, [U,6]; reduced to the mean over classes of
    IoU = TP / (TP + FP + FN), background included, pooled over the data set, in [0, 1], higher is better.

    Everingham et al. 2010 (segmentation), as Ahn et al. 2019 score seeds (eval_cam.py: level 0.15, ties to
    the background, nan-mean over 21 classes). A class that is neither there nor predicted anywhere does not count.
    """
    return None, _curve(trial, [trial.protocol.background])


def seed_miou_best(trial: Trial) -> tuple[None, Tensor]:
    """Counts at all `background_levels`, [U,6T]; the mean IoU of `seed_miou` at the level where it is highest for the
    whole of the data: an upper bound, as the level is chosen on what is evaluated.

    Wang et al. 2020 (SEAM, evaluation.py): 0, 0.01, ..., 0.59, and the best of them.
    """
    return None, _curve(trial, sorted(set(trial.protocol.background_levels)))


def seed_precision(trial: Trial) -> tuple[None, Tensor]:
    """Counts at the level `background`, [U,6]; reduced to the mean over classes, background included, of
    TP / (TP + FP) pooled over the data set, in [0, 1], higher is better. A class that is predicted nowhere does not
    count."""
    return None, _curve(trial, [trial.protocol.background])


def seed_recall(trial: Trial) -> tuple[None, Tensor]:
    """Counts at the level `background`, [U,6]; reduced to the mean over classes, background included, of
    TP / (TP + FN) pooled over the data set, in [0, 1], higher is better. A class without a pixel does not count."""
    return None, _curve(trial, [trial.protocol.background])


def seed_false_positives(trial: Trial) -> tuple[None, Tensor]:
    """Counts at the level `background`, [U,6]; reduced to the mean over classes **without** the background of
    FP / (TP + FP + FN) pooled over the data set, in [0, 1], lower is better: how much the seeds spill over.

    Ahn et al. 2019 (eval_sem_seg.py: 1 - truth / union) and Wang et al. 2020 (evaluation.py). Of each class this, the
    share missed (`seed_false_negatives`) and the IoU add up to 1.
    """
    return None, _curve(trial, [trial.protocol.background])


def seed_false_negatives(trial: Trial) -> tuple[None, Tensor]:
    """Counts at the level `background`, [U,6]; reduced to the mean over classes **without** the background of
    FN / (TP + FP + FN) pooled over the data set, in [0, 1], lower is better: how much of the objects the seeds lack.

    Sources as for `seed_false_positives`.
    """
    return None, _curve(trial, [trial.protocol.background])


def _curve(trial: Trial, levels: Sequence[float]) -> Tensor:
    """[U,6T] float32, NaN with a note where a unit's image cannot be scored."""
    curve = torch.full((len(trial), 6 * len(levels)), torch.nan)
    for units in _together(trial):
        why = _problem(trial, units)
        if why:
            trial.notes.update(dict.fromkeys(units, why))
            continue
        counts = _counts(trial, units, levels)
        curve[units] = 0.0
        curve[units, : 3 * len(levels)] = counts[1:].flatten(1).float()
        curve[units[0], 3 * len(levels) :] = counts[0].flatten().float()
    return curve


def _together(trial: Trial) -> list[list[int]]:
    """The units whose maps make one label map, by class: those of one method."""
    if trial.methods is None:
        return [[unit] for unit in range(len(trial))]
    groups: dict[str, list[int]] = {}
    for unit, label in enumerate(trial.methods):
        groups.setdefault(label, []).append(unit)
    return [sorted(units, key=lambda unit: trial.classes[unit]) for units in groups.values()]


def _problem(trial: Trial, units: Sequence[int]) -> str | None:
    if trial.annotation.masks is None or trial.annotation.mask_labels is None:
        return "no masks of the image"
    there = {trial.classes[unit] for unit in units}
    if trial.methods is not None and there != set(trial.annotation.classes):
        return "heatmap of another class of the image not finite"
    if "crf" in trial.protocol and trial.protocol.crf and trial.picture is None:
        return "no picture of the image, which a random field looks at"
    return None


def _counts(trial: Trial, units: Sequence[int], levels: Sequence[float]) -> Tensor:
    """[1 + Q, 3, T] of one method's units, in the order of `units`; made once for all the scores that read it."""
    p = trial.protocol
    alpha = p.crf if "crf" in p else 0.0
    key = ("seeds", *trial.preparation, p.frame, p.seed_rule, alpha, tuple(units), tuple(levels))
    if key not in trial.cache:
        truth, maps = _local(trial, [trial.classes[unit] for unit in units]), trial.maps[list(units)]
        if alpha:
            trial.cache[key] = _by_field(trial, maps, truth, alpha)
        else:
            made = _by_argmax if p.seed_rule == "argmax" else _by_cues
            trial.cache[key] = made(maps, truth, levels)
    found: Tensor = trial.cache[key]
    return found


def _by_argmax(maps: Tensor, truth: Tensor, levels: Sequence[float]) -> Tensor:
    winner, value = seeds.contest(maps)
    stays = seeds.sweep(value, torch.tensor(levels))
    return seeds.count(truth, winner, stays, len(maps), len(levels))


def _by_field(trial: Trial, maps: Tensor, truth: Tensor, alpha: float) -> Tensor:
    """The most probable labels of a dense random field, whose background is (1 - highest)^alpha: no level is read."""
    key = ("random field", trial.protocol.frame)
    if key not in trial.cache:
        picture = _picture(trial)
        trial.cache[key] = picture, crf.pairs(picture)
    picture, pairs = trial.cache[key]
    labels = crf.mean_field(crf.with_background(maps, alpha), picture, known=pairs).argmax(0)
    return seeds.count(truth, (labels - 1).clamp(min=0), (labels > 0).long(), len(maps), 1)


def _picture(trial: Trial) -> Tensor:
    """[3,H,W] float32 in 0..255, what the frame shows of the source picture."""
    assert trial.picture is not None
    if trial.protocol.frame == "source":
        return trial.picture.float()
    x0, y0, x1, y1 = trial.frame.window()
    return heatmaps.resize(trial.picture[:, y0:y1, x0:x1].float(), trial.frame.input)


def _by_cues(maps: Tensor, truth: Tensor, levels: Sequence[float]) -> Tensor:
    """SEC's cues, each level as their share of the maximum; salient is where any class' map is high."""
    side, kinds = seeds.CUE_SIDE, len(maps) + 3
    cells = torch.arange(side * side, dtype=torch.float32).reshape(1, 1, side, side)
    where = F.interpolate(cells, truth.shape, mode="nearest-exact")[0, 0].long()
    held = torch.bincount((where * kinds + truth).flatten(), minlength=side * side * kinds)
    held = held.reshape(-1, kinds)[:, :-1].double()
    found = [seeds.compare(held, seeds.cues(maps, maps.amax(0), level).flatten()) for level in levels]
    return torch.cat(found, 2)


def _local(trial: Trial, classes: Sequence[int]) -> Tensor:
    """The truth [H,W] as `seeds.count` wants it for these Q classes: 0, 1 + q, Q + 1 another class, Q + 2 ignored."""
    key = ("seed truth", trial.protocol.frame, tuple(classes))
    if key not in trial.cache:
        truth = _truth(trial)
        table = torch.full((int(truth.max()) + 2,), len(classes) + 1)
        table[0], table[IGNORED] = 0, len(classes) + 2
        for q, label in enumerate(classes):
            if label + 1 < len(table) - 1:
                table[label + 1] = q + 1
        trial.cache[key] = table[truth]
    found: Tensor = trial.cache[key]
    return found


def _truth(trial: Trial) -> Tensor:
    """[H,W] int64 in pixels of the frame: 0 background, 1 + class, IGNORED."""
    a = trial.annotation
    assert a.masks is not None
    assert a.mask_labels is not None
    truth = torch.zeros(a.size, dtype=torch.int64)
    for label in a.mask_labels.unique().tolist():
        mask = a.masks[a.mask_labels == label].any(0)
        truth = torch.where(mask, torch.where(truth == 0, label + 1, IGNORED), truth)
    if a.ignore is not None:
        truth[a.ignore] = IGNORED
    if trial.protocol.frame == "source":
        return truth
    x0, y0, x1, y1 = trial.frame.window()
    return heatmaps.resize(truth[None, y0:y1, x0:x1].double(), trial.frame.input, "nearest")[0].long()
