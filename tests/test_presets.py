"""Each published preset walked through by another route, straight from its paper's or its program's words.

A picture, a small network, a method; then Pillow, OpenCV, SciPy and NumPy alone. What must agree is what is scored: the
box with its IoU at the preset's threshold, or the hit.
"""

import functools
import io

import cv2
import networks
import numpy as np
import pytest
import torch
from PIL import Image
from scipy import ndimage
from torch.nn import functional as F
from torchvision import transforms

from gradcam_bench import catalogue, plan
from gradcam_bench.choices import View
from gradcam_bench.errors import UserError
from gradcam_bench.explain import explain_batch
from gradcam_bench.models.network import IMAGENET_MEAN, IMAGENET_STD, Network, Preprocessing
from gradcam_bench.probe import Probe
from gradcam_bench.samples import Batch, Sample, annotation
from gradcam_bench.scoring import make_trial, score_trial

SEEDS = range(6)
CLASSES = (0, 2)
BOXES = [
    (0, (30.0, 20.0, 260.0, 190.0), False),
    (0, (5.0, 150.0, 60.0, 230.0), True),
    (2, (100.0, 40.0, 330.0, 260.0), False),
]


@functools.lru_cache
def gap():
    halves = networks.gap(signed=True)
    halves.model.float()
    return halves


def picture(seed, size=(270, 350)):
    """Blurred noise, so that maps have several components."""
    noise = np.random.default_rng(seed).random((*size, 3)).astype(np.float32)
    blurred = cv2.GaussianBlur(noise, (0, 0), 9)
    scaled = (blurred - blurred.min()) / (blurred.max() - blurred.min())
    return Image.fromarray((scaled * 255).astype(np.uint8))


def ours(name, seed, method="grad_cam", metric=None, **truth):
    """Rows of a preset for one picture: {class: row}, by the suite's own path from the picture on."""
    recipe = catalogue.preset(name, catalogue.spec("preset", name))
    metric = metric or recipe.metrics[0]
    preprocessing = Preprocessing()
    made = plan.make(
        [catalogue.method(method, catalogue.spec("method", method))],
        [catalogue.metric(metric, catalogue.spec("metric", metric))],
        [recipe],
        preprocessing,
    )
    ((view, jobs),) = made.views.items()
    image = picture(seed)
    pixels, frame = preprocessing(image, view)
    given = {"objects": BOXES, "classes": CLASSES} | truth
    sample = Sample(0, pixels, frame, annotation("a", (image.height, image.width), **given), "")
    network = Network("tiny", gap().model, preprocessing, "features", "0", "softmax")
    probe = Probe(gap().model, ["features"], view.score)
    cases, maps, _ = explain_batch(Batch(pixels[None], (sample,)), network, probe, made.methods, view)
    trial, where, broken = make_trial(made.methods, cases, maps, {})
    job = plan.Run(_Named(), network, made, None, preprocessing)
    rows = score_trial(job, view, jobs, trial, where, broken)
    assert {row["protocol"] for row in rows} == {name}
    return {case.target: row for (case, _), row in zip(where, rows)}


class _Named:
    name = "pictures"


def tensor(image):
    return transforms.Normalize(IMAGENET_MEAN, IMAGENET_STD)(transforms.ToTensor()(image))


def weights_and_features(pixels, target):
    """One picture's activations [C,h,w] and the gradient of its class' logit, by plain autograd."""
    activations = gap().stem(pixels[None]).detach().requires_grad_()
    logits = gap().head(activations)
    grads = torch.autograd.grad(logits[0, target], activations)[0]
    return activations[0].detach().numpy(), grads[0].numpy(), logits[0].detach().numpy()


def grad_cam(pixels, target):
    activations, grads, _ = weights_and_features(pixels, target)
    return np.einsum("c,chw->hw", grads.mean((1, 2)), activations)


def largest_component(mask):
    """(x0, y0, x1, y1), last pixel included, of the 8-connected component with most pixels."""
    count, _, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=8)
    if count < 2:
        return None
    x, y, w, h, _ = stats[1 + np.argmax(stats[1:, cv2.CC_STAT_AREA])]
    return x, y, x + w - 1, y + h - 1


def inclusive_iou(a, b):
    across, down = min(a[2], b[2]) - max(a[0], b[0]) + 1, min(a[3], b[3]) - max(a[1], b[1]) + 1
    if across <= 0 or down <= 0:
        return 0.0
    area = (a[2] - a[0] + 1) * (a[3] - a[1] + 1) + (b[2] - b[0] + 1) * (b[3] - b[1] + 1) - across * down
    return across * down / area


def truths(target):
    """Boxes of the class as ILSVRC has them: inclusive pixels."""
    return [(x0, y0, x1 - 1, y1 - 1) for label, (x0, y0, x1, y1), _ in BOXES if label == target]


def agree(row, level, iou):
    """The row's best IoU at the level, and its verdict, are those of the other route."""
    assert row["curve"][level] == pytest.approx(iou, abs=1e-6)
    assert row["value"] == float(iou < 0.5)


def map_in(size, grid, rectified=True):
    grid = np.maximum(grid, 0) if rectified else grid
    return cv2.resize(grid.astype(np.float32), size, interpolation=cv2.INTER_LINEAR)


@pytest.mark.parametrize("seed", SEEDS)
def test_cam_2016_text(seed):
    rows, image = ours("cam_2016_text", seed, "cam"), picture(seed)
    pixels = tensor(image.resize((224, 224), Image.Resampling.BILINEAR))
    for target in CLASSES:
        activations, _, _ = weights_and_features(pixels, target)
        weight = gap().model.fc.weight[target].detach().numpy()
        heatmap = map_in(image.size, np.einsum("c,chw->hw", weight, activations), rectified=False)
        box = largest_component(heatmap > 0.2 * heatmap.max())
        agree(rows[target], 20, max(inclusive_iou(box, true) for true in truths(target)))


@pytest.mark.parametrize("seed", SEEDS)
def test_grad_cam_2017(seed):
    rows, image = ours("grad_cam_2017", seed), picture(seed)
    pixels = tensor(image.resize((224, 224), Image.Resampling.BILINEAR))
    for target in CLASSES:
        heatmap = map_in((224, 224), grad_cam(pixels, target))
        x0, y0, x1, y1 = largest_component(heatmap > 0.15 * heatmap.max())
        scale = np.array([224 / 350, 224 / 270] * 2)
        agree(rows[target], 15, max(plane_iou((x0, y0, x1 + 1, y1 + 1), box * scale) for box in half_open(target)))


def half_open(target):
    return [np.array(box) for label, box, _ in BOXES if label == target]


def plane_iou(a, b):
    common = max(min(a[2], b[2]) - max(a[0], b[0]), 0) * max(min(a[3], b[3]) - max(a[1], b[1]), 0)
    return common / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - common)


@pytest.mark.parametrize("seed", SEEDS)
def test_grad_cam_2017_crop(seed):
    rows, image = ours("grad_cam_2017_crop", seed), picture(seed)
    pixels = tensor(transforms.CenterCrop(224)(transforms.Resize(256)(image)))
    for target in CLASSES:
        heatmap = map_in((224, 224), grad_cam(pixels, target))
        x0, y0, x1, y1 = largest_component(heatmap > 0.15 * heatmap.max())
        wide = int(256 * 350 / 270)
        scale, offset = np.array([wide / 350, 256 / 270] * 2), np.array([round((wide - 224) / 2), 16] * 2)
        cut = [(box * scale - offset).clip(0, 224) for box in half_open(target)]
        agree(rows[target], 15, max(plane_iou((x0, y0, x1 + 1, y1 + 1), box) for box in cut if box[2] > box[0]))


@pytest.mark.parametrize("seed", SEEDS)
def test_grad_cam_2017_kth(seed):
    rows, image = ours("grad_cam_2017_kth", seed), picture(seed)
    pixels = tensor(transforms.CenterCrop(224)(image.resize((256, 256), Image.Resampling.BILINEAR)))
    for target in CLASSES:
        heatmap = map_in((224, 224), grad_cam(pixels, target))
        heatmap = (heatmap - heatmap.min()) / (heatmap.max() - heatmap.min())
        mask = (heatmap > 0.15).astype(np.uint8)
        contours, _ = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
        x, y, w, h = max((cv2.boundingRect(c) for c in contours), key=lambda r: r[2] * r[3])
        ratio = np.array([256 / 350, 256 / 270] * 2)
        corners = [(np.array(true) * ratio).clip(16, 240).astype(int) - 16 for true in truths(target)]
        agree(rows[target], 15, max(plane_iou((x, y, x + w, y + h), c) for c in corners if c[0] < c[2] and c[1] < c[3]))


def ten_crops(image):
    return [tensor(piece) for piece in transforms.TenCrop(224)(image.resize((256, 256), Image.Resampling.BILINEAR))]


def paste(maps):
    """The sum [256,256] of ten maps [224,224]; corners and centre, then the same of the mirrored picture."""
    total = np.zeros((256, 256))
    for n, one in enumerate(maps):
        y, x = [(0, 0), (0, 32), (32, 0), (32, 32), (16, 16)][n % 5]
        canvas = np.zeros((256, 256))
        canvas[y : y + 224, x : x + 224] = one
        total += canvas[:, ::-1] if n >= 5 else canvas
    return total


def imresize(image, size):
    """MATLAB's imresize to (height, width), by the definition of its kernel, for one channel."""

    def rows(column, count):
        n, scale = len(column), count / len(column)
        narrow, out = min(scale, 1.0), []
        for x in range(count):
            u = (x + 0.5) / scale - 0.5
            taps = np.arange(int(np.floor(u - 2 / narrow)) - 1, int(np.ceil(u + 2 / narrow)) + 2)
            t = np.abs(u - taps) * narrow
            kernel = np.where(
                t <= 1, 1.5 * t**3 - 2.5 * t**2 + 1, np.where(t <= 2, 2 - 4 * t + 2.5 * t**2 - t**3 / 2, 0)
            )
            mirrored = np.array([*range(n), *range(n - 1, -1, -1)])[taps % (2 * n)]
            out.append((kernel[:, None] * column[mirrored]).sum(0) / kernel.sum())
        return np.array(out)

    return rows(rows(image, size[0]).T, size[1]).T


def dt_box(levels):
    """The largest (x, y, w, h) of CAM's box generator, with OpenCV's distances and contours."""
    height, width = levels.shape
    boxes = []
    for threshold in (20, 100, 110):
        _, mask = cv2.threshold(levels, threshold, 255, cv2.THRESH_BINARY)
        distance = cv2.distanceTransform(mask, cv2.DIST_L2, cv2.DIST_MASK_PRECISE).astype(float)
        worn = (np.floor(distance * (255 / distance.max()) + 0.5) > 10).astype(np.uint8)
        worn[[0, -1]] = worn[:, [0, -1]] = 0
        for contour in cv2.findContours(worn, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)[0]:
            x, y, w, h = cv2.boundingRect(contour)
            boxes.append((min(x, width - 5), min(y, height - 5), min(w, width - x - 5), min(h, height - y - 5)))
    return max(boxes, key=lambda box: box[2] * box[3])


@pytest.mark.parametrize("seed", SEEDS)
def test_cam_2016_code(seed):
    rows, image = ours("cam_2016_code", seed, "cam"), picture(seed)
    pieces = ten_crops(image)
    for target in CLASSES:
        weight, maps = gap().model.fc.weight[target].detach().numpy(), []
        for pixels in pieces:
            activations, _, _ = weights_and_features(pixels, target)
            maps.append(np.abs(imresize(np.einsum("c,chw->hw", weight, activations), (224, 224))))
        whole = imresize(paste(maps), (270, 350))
        file = io.BytesIO()
        Image.fromarray(np.rint(255 * (whole / whole.max()).clip(0, 1)).astype(np.uint8)).save(file, "JPEG", quality=75)
        levels = cv2.imdecode(np.frombuffer(file.getvalue(), np.uint8), cv2.IMREAD_GRAYSCALE)
        x, y, w, h = dt_box(levels)
        iou = max(inclusive_iou((x, y, x + w, y + h), true) for true in truths(target))
        agree(rows[target], 0, iou)
        assert len(set(rows[target]["curve"])) == 1


@pytest.mark.parametrize("method", ["layer_cam_code", "layer_cam"])
@pytest.mark.parametrize("seed", SEEDS)
def test_layer_cam_2021(seed, method):
    rows, image = ours("layer_cam_2021", seed, method), picture(seed)
    for target in CLASSES:
        maps = []
        for pixels in ten_crops(image):
            activations, grads, _ = weights_and_features(pixels, target)
            if method == "layer_cam_code":  # windows of 2 x 2; of this network's gradient all places are equal
                pooled = torch.from_numpy(grads)[None, :, : 2 * (grads.shape[1] // 2), : 2 * (grads.shape[2] // 2)]
                pooled = pooled.unfold(2, 2, 2).unfold(3, 2, 2).sum((4, 5))
                grads = F.interpolate(pooled, size=grads.shape[1:], mode="bilinear", align_corners=True)[0].numpy()
                heatmap = np.maximum(grads * activations, 0).sum(0)
            else:
                heatmap = np.maximum((np.maximum(grads, 0) * activations).sum(0), 0)
            resized = F.interpolate(
                torch.from_numpy(heatmap)[None, None], (224, 224), mode="bilinear", align_corners=True
            )
            maps.append(resized[0, 0].numpy())
        whole = paste(maps)
        levels = (whole / whole.max() * 255).astype(np.uint8)
        large = np.rint(cv2.resize(levels.astype(np.float32), image.size, interpolation=cv2.INTER_CUBIC)).clip(0, 255)
        contours, _ = cv2.findContours((large > 38.25).astype(np.uint8), cv2.RETR_TREE, cv2.CHAIN_APPROX_SIMPLE)
        x, y, w, h = max((cv2.boundingRect(c) for c in contours), key=lambda r: r[2] * r[3])
        agree(rows[target], 38, max(inclusive_iou((x, y, x + w, y + h), true) for true in truths(target)))


def torchray_map(image, target, kernel):
    """The positive Grad-CAM map in the source image, the picture resized on floats to a shorter side of 224."""
    float_image = np.asarray(image, np.float32) / 255
    wide = int(224 * 350 / 270)
    small = cv2.resize(float_image, (wide, 224), interpolation=cv2.INTER_LINEAR)
    pixels = transforms.Normalize(IMAGENET_MEAN, IMAGENET_STD)(torch.from_numpy(small).permute(2, 0, 1))
    grid = np.maximum(grad_cam(pixels, target), 0)
    return kernel(grid)


def hits(point, mask, tolerance=15):
    y, x = np.nonzero(mask)
    return float(((y - point[0]) ** 2 + (x - point[1]) ** 2).min() < tolerance**2)


def box_mask(target):
    mask = np.zeros((270, 350), bool)
    for x0, y0, x1, y1 in half_open(target).copy():
        mask[int(y0) : int(y1), int(x0) : int(x1)] = True
    return mask


def small_objects(seed):
    """Boxes about which a peak may well miss, of three classes; one class has difficult objects only."""
    rng = np.random.default_rng(seed + 100)
    found = []
    for label, difficult in ((0, False), (0, True), (1, True), (2, False)):
        x, y = rng.integers(0, 290), rng.integers(0, 210)
        found.append(
            (label, (float(x), float(y), float(x + rng.integers(20, 60)), float(y + rng.integers(20, 60))), difficult)
        )
    return [*found, (3, (0.0, 0.0, 350.0, 80.0), False)]


def masks_of(objects):
    masks = np.zeros((len(objects), 270, 350), bool)
    for mask, (_, (x0, y0, x1, y1), _) in zip(masks, objects):
        mask[int(y0) : int(y1), int(x0) : int(x1)] = True
    return masks


BILINEAR = functools.partial(map_in, (350, 270))


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("subset", ["", "_difficult"])
@pytest.mark.parametrize("kind", ["torchray_2019", "torchray_2019_coco"])
def test_torchray_2019(kind, subset, seed):
    objects = small_objects(seed)
    masks, labels = masks_of(objects), torch.tensor([label for label, _, _ in objects])
    truth = {"objects": objects, "classes": (0, 1, 2, 3)}
    if kind.endswith("coco"):
        truth |= {"masks": torch.from_numpy(masks), "mask_labels": labels}
    rows = ours(kind + subset, seed, **truth)
    for target in range(4):
        if target == 1:  # all its objects are difficult
            assert (rows[1]["value"], rows[1]["problem"]) == (None, "difficult")
            continue
        if subset and target == 3:  # 28000 of 94500 pixels
            assert rows[3]["problem"] == "not in the difficult subset of Zhang et al. 2016"
            continue
        heatmap = torchray_map(picture(seed), target, BILINEAR)
        point = np.unravel_index(np.argmax(heatmap), heatmap.shape)
        assert rows[target]["value"] == hits(point, masks[(labels == target).numpy()].any(0)), target


@pytest.mark.parametrize("seed", SEEDS)
def test_torchray_2019_smooths_gradients(seed):
    """The gradient at the pixels, the largest magnitude, in the source image, SciPy's Gaussian of 2 % of 350 pixels."""
    objects = small_objects(seed)
    masks, labels = masks_of(objects), np.array([label for label, _, _ in objects])
    rows = ours("torchray_2019", seed, "saliency", objects=objects, classes=(0, 2, 3))
    float_image = np.asarray(picture(seed), np.float32) / 255
    small = cv2.resize(float_image, (int(224 * 350 / 270), 224), interpolation=cv2.INTER_LINEAR)
    pixels = transforms.Normalize(IMAGENET_MEAN, IMAGENET_STD)(torch.from_numpy(small).permute(2, 0, 1))
    for target in (0, 2, 3):
        asked = pixels[None].clone().requires_grad_()
        (gradient,) = torch.autograd.grad(gap().model(asked)[0, target], asked)
        large = map_in((350, 270), gradient[0].abs().amax(0).numpy())
        smoothed = ndimage.gaussian_filter(large, 7.0, mode="nearest", radius=28)
        point = np.unravel_index(np.argmax(smoothed), smoothed.shape)
        assert rows[target]["value"] == hits(point, masks[labels == target].any(0))


@pytest.mark.parametrize("seed", SEEDS)
def test_voc_pointing_2016(seed):
    objects = small_objects(seed)
    masks, labels = masks_of(objects), np.array([label for label, _, _ in objects])
    rows = ours("voc_pointing_2016", seed, objects=objects, classes=(0, 1, 2, 3))

    def kernel(grid):  # Catmull-Rom over replicated borders, clipped to the grid's own range
        size, padded = (270, 350), np.pad(grid, 3, mode="edge")
        axes = [(np.arange(new) + 0.5) * old / new - 0.5 for old, new in zip(grid.shape, size)]
        weights = []
        for at, n in zip(axes, padded.shape):
            t = np.abs(at[:, None] + 3 - np.arange(n))
            weights.append(
                np.where(t <= 1, 1.5 * t**3 - 2.5 * t**2 + 1, np.where(t <= 2, 2 - 4 * t + 2.5 * t**2 - t**3 / 2, 0))
            )
        return (weights[0] @ padded @ weights[1].T).clip(grid.min(), grid.max())

    for target in (0, 2, 3):
        heatmap = torchray_map(picture(seed), target, kernel)
        point = np.unravel_index(np.argmax(heatmap), heatmap.shape)
        assert rows[target]["value"] == hits(point, masks[labels == target].any(0))


def test_the_pointing_presets_look_once():
    names = ["torchray_2019", "torchray_2019_coco", "torchray_2019_difficult", "torchray_2019_coco_difficult"]
    names.append("voc_pointing_2016")
    recipes = [catalogue.preset(name, catalogue.spec("preset", name)) for name in names]
    metric = catalogue.metric("pointing_game", catalogue.spec("metric", "pointing_game"))
    method = catalogue.method("grad_cam", catalogue.spec("method", "grad_cam"))
    ((_, jobs),) = plan.make([method], [metric], recipes, Preprocessing()).views.items()
    assert [job.id for job in jobs] == names


@pytest.mark.parametrize(
    ("of_preset", "view", "protocol", "message"),
    [
        ("cam_2016_code", {}, {"connectivity": 4}, "does not go with protocol.rule=cam_2016_code"),
        ("layer_cam_2021", {}, {"connectivity": 4}, "does not go with protocol.rule=layer_cam_2021"),
        ("cam_2016_code", {}, {"quantize": "percent"}, "protocol.rule=cam_2016_code has thresholds of 255"),
        ("layer_cam_2021", {}, {"normalize": "none"}, "protocol.order=quantize_first needs a protocol.normalize"),
        ("grad_cam_2017", {"augment": "ten_crop"}, {}, "view.augment=ten_crop needs view.crop"),
        ("cam_2016_code", {"augment": "ten_crops"}, {}, "did you mean 'ten_crop'"),
    ],
)
def test_what_does_not_go_together_is_refused(of_preset, view, protocol, message):
    recipe = catalogue.preset(of_preset, catalogue.spec("preset", of_preset))
    label = recipe.metrics[0]
    with pytest.raises(UserError, match=message.replace(".", r"\.")):
        plan.make(
            [catalogue.method("grad_cam", catalogue.spec("method", "grad_cam"))],
            [catalogue.metric(label, catalogue.spec("metric", label))],
            [recipe],
            Preprocessing(),
            view,
            protocol,
        )


def test_four_neighbours_go_with_rectangles():
    recipe = catalogue.preset("grad_cam_2017_kth", catalogue.spec("preset", "grad_cam_2017_kth"))
    label = recipe.metrics[0]
    metric = catalogue.metric(label, catalogue.spec("metric", label))
    method = catalogue.method("grad_cam", catalogue.spec("method", "grad_cam"))
    made = plan.make([method], [metric], [recipe], Preprocessing(), {}, {"connectivity": 4})
    assert next(iter(made.views)) == View(resize="warp", size=256, crop=224)
