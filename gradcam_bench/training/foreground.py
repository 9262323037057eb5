"""Full supervision from a few pictures: where their objects are, as the target beside each one's pixels.

The few-shot baseline of Choe et al. 2020, section 5: what WSOL methods are given to choose their settings by, images
with boxes or masks, trains a network to tell foreground from background, place by place, whatever the class.
"""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from gradcam_bench import heatmaps
from gradcam_bench.choices import View
from gradcam_bench.errors import UserError
from gradcam_bench.geometry import Frame, rasterize
from gradcam_bench.samples import Annotation
from gradcam_bench.training.data import Example, Pictures, number


class Regions(Pictures):
    """Pictures as pixels [3,H,W] and region [1,H,W] float32: 1 on the masks of the objects, where the data set has
    some, else in their boxes. Flipped, half of the time, together."""

    def __getitem__(self, key: tuple[int, int]) -> Example:
        epoch, position = key
        index = self.known.indices[position]
        try:
            picture = self.dataset.read(index, masks=True)
            pixels, frame = self.preprocessing(picture.image, View())
            truth = region(picture.annotation, frame)
        except UserError as error:
            return str(error)
        flips = self.augment is not None and self.augment.name == "flip"
        if flips and number(self.seed, "augment", epoch, self.dataset.ids[index]) % 2:
            pixels, truth = pixels.flip(2), truth.flip(2)
        return pixels, truth


def region(annotation: Annotation, frame: Frame) -> Tensor:
    """[1,H,W] float32 of 0 and 1: the input's pixels that any object covers. Raises UserError where none is known."""
    masks, boxes = annotation.masks, annotation.boxes
    if masks is not None and len(masks):
        x0, y0, x1, y1 = frame.window()
        return (heatmaps.resize(masks.any(0)[None, y0:y1, x0:x1].float(), frame.input, "nearest") > 0.5).float()
    if not len(boxes):
        raise UserError(f"{annotation.image_id}: neither a mask nor a box, and a foreground is to be learnt")
    return rasterize(frame.to_input(boxes), frame.input)[None].float()


def placed(output: Tensor, regions: Tensor) -> tuple[Tensor, Tensor]:
    """(logits, targets), each [B*h*w,1]: of every place of the grid of an output [B,K,h,w] that is the same for all
    classes, and the share of it that regions [B,1,H,W] cover."""
    height, width = output.shape[2:]
    return output[:, 0].reshape(-1, 1).float(), F.adaptive_avg_pool2d(regions, (height, width)).reshape(-1, 1)
