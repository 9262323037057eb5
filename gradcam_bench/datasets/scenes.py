"""Scenes on disk: a VOC devkit of drawn pictures (see `drawing`), made on first use and read by the VOC loader."""

import hashlib
import json
import os
import tempfile
from pathlib import Path
from typing import Any

from PIL import Image
from rich.console import Console
from rich.progress import track

from gradcam_bench.annotations.pictures import PALETTE
from gradcam_bench.drawing import CLASSES, SPLIT_SEEDS, VERSION, Scene, draw
from gradcam_bench.errors import UserError, unknown

__all__ = ["CLASSES", "SPLIT_SEEDS", "VERSION", "Scene", "annotation", "devkit", "draw", "fingerprint", "write_devkit"]

DIFFICULT_BELOW = 300  # visible pixels; an object smaller than this is marked difficult


def annotation(scene: Scene, name: str) -> str:
    """The VOC XML of a scene; boxes 1-based and inclusive."""
    height, width = scene.instances.shape
    objects = "".join(_object_xml(scene, k) for k in range(len(scene.labels)))
    return (
        f"<annotation>\n<folder>VOC2012</folder>\n<filename>{name}.png</filename>\n<size><width>{width}</width>"
        f"<height>{height}</height><depth>3</depth></size>\n<segmented>1</segmented>\n{objects}</annotation>\n"
    )


def _object_xml(scene: Scene, k: int) -> str:
    x0, y0, x1, y1 = scene.boxes[k].tolist()
    return (
        f"<object><name>{CLASSES[scene.labels[k]]}</name><pose>Unspecified</pose>"
        f"<truncated>{int(scene.truncated[k])}</truncated><occluded>{int(scene.occluded[k])}</occluded>"
        f"<difficult>{int(scene.areas[k] < DIFFICULT_BELOW)}</difficult><bndbox><xmin>{x0 + 1}</xmin>"
        f"<ymin>{y0 + 1}</ymin><xmax>{x1}</xmax><ymax>{y1}</ymax></bndbox></object>\n"
    )


def fingerprint(count: int, split: str = "test") -> str:
    """sha256 over pixels, masks and annotations of a split's first `count` scenes (no PNG: zlib may differ)."""
    digest = hashlib.sha256()
    for index in range(count):
        scene = draw(index, SPLIT_SEEDS[split])
        for part in (scene.image, scene.instances, scene.semantic):
            digest.update(part.tobytes())
        digest.update(annotation(scene, scene_id(index)).encode())
    return digest.hexdigest()


def scene_id(index: int) -> str:
    """The image id of the `index`-th scene of a devkit."""
    return f"scene_{index:06d}"


def write_devkit(root: Path, split: str, count: int, seed: int | None = None) -> Path:
    """Write the first `count` scenes of stream `seed` (default: the split's own) as a VOC devkit under `root`.

    Returns root/VOCdevkit, which appears all at once when complete. One root holds one split: the same call again
    does nothing, another one is refused.
    """
    if seed is None and split not in SPLIT_SEEDS:
        raise unknown("split of scenes", split, SPLIT_SEEDS)
    if count < 1:
        raise UserError(f"scenes: count={count} pictures: give 1 or more")
    facts = {"version": VERSION, "split": split, "count": count, "seed": SPLIT_SEEDS[split] if seed is None else seed}
    root.mkdir(parents=True, exist_ok=True)
    final = root / "VOCdevkit"
    if not final.exists():
        with tempfile.TemporaryDirectory(prefix=".scenes-", dir=root) as part:
            _fill(Path(part) / "VOCdevkit", facts)
            try:
                (Path(part) / "VOCdevkit").rename(final)
            except OSError:
                if not final.exists():  # else another process was first; what it wrote is judged below
                    raise
    stated = final / "scenes.json"
    if not stated.is_file() or json.loads(stated.read_text()) != facts:
        raise UserError(f"{final} holds something other than the scenes {facts}; name another root, or remove it")
    return final


def devkit(split: str = "test", count: int = 200, folder: str | Path | None = None) -> Path:
    """A root that holds the devkit of a split's first `count` scenes; drawn on first use, kept in the user's cache."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "gradcam-bench"
    root = Path(folder or cache) / f"scenes-v{VERSION}-{split}-{count}"
    write_devkit(root, split, count)
    return root


def _fill(devkit: Path, facts: dict[str, Any]) -> None:
    """Write all files of a devkit; `facts` as in scenes.json."""
    voc, split, count = devkit / "VOC2012", facts["split"], facts["count"]
    for folder in ("JPEGImages", "Annotations", "SegmentationClass", "SegmentationObject"):
        (voc / folder).mkdir(parents=True)
    console = Console(stderr=True)
    for index in track(range(count), f"drawing scenes ({split})", console=console, disable=count < 500, transient=True):
        scene, name = draw(index, facts["seed"]), scene_id(index)
        Image.fromarray(scene.image).save(voc / "JPEGImages" / f"{name}.png", compress_level=1)
        (voc / "Annotations" / f"{name}.xml").write_bytes(annotation(scene, name).encode())
        for folder, indices in (("SegmentationClass", scene.semantic), ("SegmentationObject", scene.instances)):
            mask = Image.fromarray(indices)
            mask.putpalette(PALETTE)
            mask.save(voc / folder / f"{name}.png")
    for task in ("Main", "Segmentation"):
        (voc / "ImageSets" / task).mkdir(parents=True)
        (voc / "ImageSets" / task / f"{split}.txt").write_text("".join(f"{scene_id(k)}\n" for k in range(count)))
    (devkit / "scenes.json").write_text(json.dumps(facts) + "\n")
