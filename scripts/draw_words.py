"""Draw what the captioner and the answerer look at in scenes, word by word, as one PNG a scene.

    python scripts/draw_words.py --split test --scenes 6 --out words/

On each sheet: Grad-CAM of every word of the caption that the network says by itself; of the sentence as a whole; of a
shape that is not there in the place of the first one, and its counterfactual; and of the network's own answers.
"""

import argparse
from pathlib import Path

import numpy as np
from PIL import Image
from torch import Tensor

import gradcam_bench as gb
from gradcam_bench import language
from gradcam_bench.choices import View
from gradcam_bench.drawing import SPLIT_SEEDS
from gradcam_bench.language import Painted
from gradcam_bench.models.language_nets import LAYER, Answerer, Captioner, talkers
from gradcam_bench.models.network import Preprocessing
from gradcam_bench.report.show import side_by_side

captioner, answerer = talkers()


def maps_of(
    net: Captioner | Answerer, pixels: Tensor, targets: dict[str, gb.targets.Target], method: str = "grad_cam"
) -> dict[str, Tensor]:
    """{label: [h,w]}, rectified, of one picture [1,3,224,224]."""
    index = [0] * len(targets)
    found = gb.explain(net, pixels, list(targets.values()), [method], LAYER, image_index=index)[method]  # type: ignore[arg-type]
    return dict(zip(targets, gb.rectify(found), strict=True))


def sheet(scene: Painted) -> bytes:
    """The PNG of one scene."""
    pixels, _ = Preprocessing("warp", 224, None)(Image.fromarray(scene.image), View())
    pixels = pixels[None]
    said = captioner.say(pixels)[0]
    words = {f"{t + 1}: {word}": gb.targets.phrase(captioner, said, t, t + 1) for t, word in enumerate(said)}
    maps = maps_of(captioner, pixels, words | {"the sentence": gb.targets.phrase(captioner, said)})
    shapes = {thing.shape for thing in scene.things}
    other = next(name for name in language.SHAPES if name not in shapes)
    absent = gb.targets.phrase(captioner, [*said[:2], other], 2)
    maps |= maps_of(captioner, pixels, {f"3: {other} (absent)": absent})
    maps |= maps_of(captioner, pixels, {f"against {other}": absent}, "counterfactual_grad_cam")
    rng = language.painter(0, scene.index, 2)
    for question, _ in language.asked(scene.things, rng):
        answer = answerer.reply(pixels, question.words)[0]
        label = f"{' '.join(question.words)}?\n{answer}" + ("" if answer == question.answer else " (wrong)")
        maps |= maps_of(answerer, pixels, {label: gb.targets.answer(answerer, question.words, answer)})
    size = scene.image.shape[0], scene.image.shape[1]
    heat = {label: np.asarray(gb.normalize(gb.resize(one, size))) for label, one in maps.items()}
    return side_by_side(scene.image, heat, title=" ".join(said))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--split", choices=sorted(SPLIT_SEEDS), default="test")
    parser.add_argument("--scenes", type=int, default=6)
    parser.add_argument("--out", type=Path, default=Path("results/words"))
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    for scene in language.told(SPLIT_SEEDS[options.split], options.scenes):
        path = options.out / f"scene_{scene.index:06d}.png"
        path.write_bytes(sheet(scene))
        print(path)


if __name__ == "__main__":
    main()
