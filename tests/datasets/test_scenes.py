"""Scenes: frozen pixels, exact annotation, a devkit that is whole or absent, and the networks trained on them."""

from pathlib import Path

import numpy as np
import pytest
import torch
from defusedxml.ElementTree import parse
from PIL import Image

from gradcam_bench import drawing
from gradcam_bench.choices import View
from gradcam_bench.datasets import scenes
from gradcam_bench.errors import UserError
from gradcam_bench.models.scenes_nets import scenes_network

SEED = scenes.SPLIT_SEEDS["test"]


@pytest.fixture(scope="module")
def drawn() -> list[scenes.Scene]:
    return [scenes.draw(index, SEED) for index in range(40)]


def test_pixels_masks_and_annotations_of_this_version_are_frozen() -> None:
    assert scenes.VERSION == 1
    assert scenes.fingerprint(20) == "0d1d7fc5b77ed1993955686271278854ce7c5d9d825e543252f12599cd5a699f"


def test_sine_table() -> None:
    exact = np.rint(drawing.UNIT * np.sin(2 * np.pi * np.arange(drawing.TURN) / drawing.TURN))
    assert tuple(exact.astype(int)) == drawing._SINE


def test_boxes_are_tight(drawn: list[scenes.Scene]) -> None:
    for scene in drawn:
        for k, (x0, y0, x1, y1) in enumerate(scene.boxes.tolist()):
            mask = scene.instances == k + 1
            assert mask[y0:y1, x0:x1].sum() == mask.sum() == scene.areas[k] > 0
            for edge in (mask[y0, x0:x1], mask[y1 - 1, x0:x1], mask[y0:y1, x0], mask[y0:y1, x1 - 1]):
                assert edge.any()


def test_classes_counts_sizes_and_masks(drawn: list[scenes.Scene]) -> None:
    assert {label for scene in drawn for label in scene.labels} == set(range(len(scenes.CLASSES)))
    assert {len(scene.labels) for scene in drawn} == {1, 2, 3, 4}
    assert any(len(set(scene.labels)) < len(scene.labels) for scene in drawn)
    assert any(any(scene.occluded) for scene in drawn)
    assert any(any(scene.truncated) for scene in drawn)
    for scene in drawn:
        height, width, _ = scene.image.shape
        assert 180 <= height <= 280
        assert 200 <= width <= 320
        assert scene.instances.shape == scene.semantic.shape == (height, width)
        for k, label in enumerate(scene.labels):
            assert set(scene.semantic[scene.instances == k + 1]) == {label + 1}


def test_objects_differ_from_what_surrounds_them(drawn: list[scenes.Scene]) -> None:
    gaps = []
    for scene in drawn:
        background = scene.image[scene.instances == 0].mean(0)
        objects = [scene.image[scene.instances == k + 1].mean(0) for k in range(len(scene.labels))]
        gaps += [abs(colour - background).sum() for colour in objects]
    assert np.median(gaps) > 200


def test_a_scene_depends_on_its_seed_and_index_alone(drawn: list[scenes.Scene]) -> None:
    again = scenes.draw(7, SEED)
    assert np.array_equal(again.image, drawn[7].image)
    assert len({scene.image.tobytes() for scene in drawn}) == len(drawn)
    assert scenes.draw(7, scenes.SPLIT_SEEDS["val"]).image.tobytes() != again.image.tobytes()
    assert len(set(scenes.SPLIT_SEEDS.values())) == len(scenes.SPLIT_SEEDS)


def test_devkit_says_what_was_drawn(tmp_path: Path, drawn: list[scenes.Scene]) -> None:
    voc = scenes.write_devkit(tmp_path, "test", 6) / "VOC2012"
    ids = [scenes.scene_id(index) for index in range(6)]
    for task in ("Main", "Segmentation"):
        assert (voc / "ImageSets" / task / "test.txt").read_text().split() == ids
    for name, scene in zip(ids, drawn):
        assert np.array_equal(np.asarray(Image.open(voc / "JPEGImages" / f"{name}.png")), scene.image)
        for folder, expected in (("SegmentationClass", scene.semantic), ("SegmentationObject", scene.instances)):
            mask = Image.open(voc / folder / f"{name}.png")
            assert mask.mode == "P"
            assert np.array_equal(np.asarray(mask), expected)
        _check_xml(voc / "Annotations" / f"{name}.xml", name, scene)


def _check_xml(path: Path, name: str, scene: scenes.Scene) -> None:
    root = parse(path).getroot()
    assert root.findtext("filename") == f"{name}.png"
    height, width, depth = scene.image.shape
    assert [int(root.findtext(f"size/{key}")) for key in ("width", "height", "depth")] == [width, height, depth]
    objects = root.findall("object")
    assert [entry.findtext("name") for entry in objects] == [scenes.CLASSES[label] for label in scene.labels]
    for k, entry in enumerate(objects):
        corners = [int(entry.findtext(f"bndbox/{key}")) for key in ("xmin", "ymin", "xmax", "ymax")]
        assert corners == (scene.boxes[k] + [1, 1, 0, 0]).tolist()  # 1-based and inclusive
        flags = [entry.findtext(key) for key in ("truncated", "occluded", "difficult")]
        small = scene.areas[k] < scenes.DIFFICULT_BELOW
        assert flags == [str(int(flag)) for flag in (scene.truncated[k], scene.occluded[k], small)]


def test_a_whole_devkit_is_kept_and_another_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    final = scenes.write_devkit(tmp_path, "val", 2)
    with monkeypatch.context() as patch:
        patch.setattr(scenes, "draw", None)  # nothing is drawn a second time
        assert scenes.write_devkit(tmp_path, "val", 2) == final
    with pytest.raises(UserError, match="another root"):
        scenes.write_devkit(tmp_path, "val", 3)
    with pytest.raises(UserError, match="unknown split"):
        scenes.write_devkit(tmp_path / "new", "vla", 3)


def test_an_interrupted_write_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    draw = scenes.draw

    def stop(index: int, seed: int) -> scenes.Scene:
        if index == 2:
            raise KeyboardInterrupt
        return draw(index, seed)

    with monkeypatch.context() as patch:
        patch.setattr(scenes, "draw", stop)
        with pytest.raises(KeyboardInterrupt):
            scenes.write_devkit(tmp_path, "test", 4)
    assert list(tmp_path.iterdir()) == []
    scenes.write_devkit(tmp_path, "test", 4)
    assert [path.name for path in tmp_path.iterdir()] == ["VOCdevkit"]


def test_devkit_roots_are_apart(tmp_path: Path) -> None:
    one, two = (scenes.devkit("test", count, tmp_path) for count in (1, 2))
    assert one != two
    assert (one / "VOCdevkit").is_dir()


@pytest.mark.parametrize("name", ["scenes_gap", "scenes_fc"])
def test_weights_recognise_scenes_never_seen_in_training(name: str) -> None:
    network = scenes_network(name)
    assert network.classes == scenes.CLASSES
    said, true = [], np.zeros((100, len(scenes.CLASSES)), dtype=bool)
    for index in range(100):
        scene = scenes.draw(5000 + index, SEED)
        true[index, list(scene.labels)] = True
        pixels, _ = network.preprocessing(Image.fromarray(scene.image), View())
        with torch.inference_mode():
            said.append((network.probabilities(network.module(pixels[None]))[0] > 0.5).numpy())
    hits = (np.stack(said) & true).sum()
    assert 2 * hits / (np.stack(said).sum() + true.sum()) >= 0.9


def test_cam_applies_to_scenes_gap_alone() -> None:
    network = scenes_network("scenes_gap", weights="none")
    grids = []
    network.module.layer4.register_forward_hook(lambda module, inputs, output: grids.append(output))
    with torch.inference_mode():
        logits = network.module(torch.randn(2, 3, 224, 224, generator=torch.Generator().manual_seed(0)))
    assert grids[0].shape == (2, 128, 14, 14)
    assert grids[0].min() >= 0
    torch.testing.assert_close(logits, network.module.fc(grids[0].mean((2, 3))))
    assert isinstance(scenes_network("scenes_fc", "none").module.get_submodule("features.20"), torch.nn.ReLU)
