"""Transformers and their kin of timm at small sizes, on images that are not square: every CAM, whatever is asked of the
output: a class, how near an embedding is to a given one, a difference."""

import networks
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import gradcam_bench as gb
from gradcam_bench import catalogue
from gradcam_bench.methods import gradient

timm = pytest.importorskip("timm", reason="timm is an optional extra")

SIZE = (64, 96)
SMALL = {"depth": 2, "embed_dim": 48, "num_heads": 3, "img_size": SIZE}
SWIN = {"img_size": SIZE, "window_size": 2, "embed_dim": 12, "depths": (1, 1, 2, 2), "num_heads": (1, 2, 2, 4)}
MAXVIT = {"img_size": SIZE, "depths": (1, 1, 1, 1), "embed_dim": (32, 32, 32, 32), "stem_width": 8}
VITS = {  # architecture: options, tokens before the grid, grid
    "vit_tiny_patch16_224": (SMALL, 1, (4, 6)),
    "deit_tiny_distilled_patch16_224": (SMALL, 2, (4, 6)),
    "deit3_small_patch16_224": (SMALL, 1, (4, 6)),
    "vit_base_patch16_clip_224": (SMALL, 1, (4, 6)),
    "vit_base_patch16_siglip_224": (SMALL, 0, (4, 6)),
    "vit_small_patch16_224.dino": (SMALL, 1, (4, 6)),
    "vit_small_patch14_dinov2": (SMALL | {"img_size": (56, 84)}, 1, (4, 6)),
    "vit_small_patch14_reg4_dinov2": (SMALL | {"img_size": (56, 84)}, 5, (4, 6)),
    "beit_base_patch16_224": (SMALL, 1, (4, 6)),
    "eva02_tiny_patch14_224": (SMALL | {"img_size": (56, 84)}, 1, (4, 6)),
}
OTHERS = {  # architecture: options, layer, grid, channels last
    "swin_tiny_patch4_window7_224": (SWIN, "layers.3.blocks.1.norm1", (2, 3), True),
    "swinv2_tiny_window8_256": (SWIN, "layers.3.blocks.1.norm1", (2, 3), True),
    "maxvit_rmlp_pico_rw_256": (MAXVIT, "norm", (2, 3), False),
    "test_convnext": ({}, "stages", (2, 3), False),
}
CAMS = [
    label
    for label in catalogue.names("method")
    if catalogue.method(label, catalogue.spec("method", label)).passes == "one look"
    and label not in ("cam", "foreground")
]
ATTENTION = ("attention_rollout", "generic_attention", "le_grad", "le_grad_code")


def made(name: str, options: dict, classes: int = 5) -> nn.Module:
    """The network, with numbers where timm puts zeros: heads, and scales of residual branches."""
    torch.manual_seed(0)
    model = timm.create_model(name, num_classes=classes, **options).eval()
    for parameter in model.parameters():
        if parameter.std(correction=0) == 0 and parameter.mean() < 0.1:
            nn.init.normal_(parameter, std=0.1)
    return model


def look(model: nn.Module, layer: str, size: tuple, order: object, targets: list) -> dict[str, Tensor]:
    """Maps of every CAM, after a check of Grad-CAM against a plain hook and tokens laid out by hand."""
    images = torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(0))
    maps = gb.explain(model, images, targets, [*CAMS, "grad_cam"], layer)
    native = []
    handle = model.get_submodule(layer).register_forward_hook(lambda _module, _inputs, output: native.append(output))
    output = model(images.clone().requires_grad_())
    handle.remove()
    score = sum(t(output)[b] if callable(t) else output[b, t] for b, t in enumerate(targets))
    grads = torch.autograd.grad(score, native[0])[0]
    grids = [order(one) for one in (native[0].detach(), grads)]
    expected = gradient.hires_cam(networks.evidence_of(*grids))
    torch.testing.assert_close(maps["hires_cam"], expected, rtol=1e-4, atol=1e-4 * float(expected.abs().max()))
    return maps


def questions(name: str, dimension: int) -> list[list]:
    text = torch.randn(dimension, generator=torch.Generator().manual_seed(1))
    return [
        [1, 3],
        [lambda output: F.cosine_similarity(output, text[None])] * 2,
        [lambda output: output[:, 0] - output[:, 1:].logsumexp(1), 2],
    ]


@pytest.mark.parametrize("asked", [0, 1, 2], ids=["class", "embedding", "margin"])
@pytest.mark.parametrize("name", VITS)
def test_every_cam_on_vision_transformers(name: str, asked: int) -> None:
    options, prefix, grid = VITS[name]
    model = made(name, options)

    def order(tokens: Tensor) -> Tensor:
        return tokens[:, prefix:].unflatten(1, grid).permute(0, 3, 1, 2)

    maps = look(model, "blocks.1.norm1", options["img_size"], order, questions(name, 5)[asked])
    for label, found in maps.items():
        assert found.shape == (2, *grid), label
        assert found.isfinite().all(), label
        assert found.flatten(1).std(1).min() > 0, label


@pytest.mark.parametrize("asked", [0, 1], ids=["class", "embedding"])
@pytest.mark.parametrize("name", OTHERS)
def test_every_cam_on_other_families(name: str, asked: int) -> None:
    options, layer, grid, last = OTHERS[name]
    model = made(name, options)

    def order(native: Tensor) -> Tensor:
        return native.permute(0, 3, 1, 2) if last else native

    maps = look(model, layer, SIZE, order, questions(name, 5)[asked])
    for label, found in maps.items():
        assert found.shape == (2, *grid), label
        assert found.isfinite().all(), label


@pytest.mark.parametrize("name", VITS)
def test_attention_on_vision_transformers(name: str) -> None:
    """Fused attention and attention written out by timm are the same; an embedding and a class are asked alike."""
    options, _, grid = VITS[name]
    model = made(name, options)
    images = torch.randn(2, 3, *options["img_size"], generator=torch.Generator().manual_seed(0))
    cases = {"images": images, "methods": ATTENTION, "layer": "blocks.1.norm1"}
    fused = gb.explain(model, targets=[1, 3], **cases)
    switched = [module for module in model.modules() if hasattr(module, "fused_attn")]
    assert switched
    assert any(module.fused_attn for module in switched)
    for module in switched:
        module.fused_attn = False
    plain = gb.explain(model, targets=[1, lambda output: output[:, 3]], **cases)
    for label, maps in fused.items():
        assert maps.shape == (2, *grid)
        assert maps.flatten(1).std(1).min() > 0, label
        torch.testing.assert_close(plain[label], maps, rtol=1e-3, atol=1e-4 * float(maps.amax()))


def test_attention_of_a_pooling_is_what_le_grad_reads() -> None:
    """SigLIP pools by attention: the gradient of each block's pooled tokens at the pooling's weights, written out."""
    model = made("vit_base_patch16_siglip_224", SMALL)
    images = torch.randn(2, 3, *SIZE, generator=torch.Generator().manual_seed(0))
    found = gb.explain(model, images, [1, 3], ["le_grad"], "blocks.1.norm1")["le_grad"]
    pool, kept = model.attn_pool, []
    x = model.patch_embed(images) + model.pos_embed
    for block in model.blocks:
        x = block(x).detach()
        kept.append(x)
    maps = []
    for tokens in kept:
        count, length, channels = tokens.shape
        q = pool.q(pool.latent.expand(count, -1, -1)).reshape(count, 1, pool.num_heads, -1).transpose(1, 2)
        k, v = pool.kv(model.norm(tokens)).reshape(count, length, 2, pool.num_heads, -1).permute(2, 0, 3, 1, 4)
        weights = (pool.q_norm(q) @ pool.k_norm(k).transpose(2, 3) * pool.scale).softmax(3).detach().requires_grad_()
        pooled = pool.proj((weights @ v).transpose(1, 2).reshape(count, 1, channels))
        pooled = (pooled + pool.mlp(pool.norm(pooled)))[:, 0]
        scores = model.head(model.fc_norm(pooled))[[0, 1], [1, 3]]
        maps.append(torch.autograd.grad(scores.sum(), weights)[0].relu().mean((1, 2)))
    expected = (sum(maps) / 2).unflatten(1, (4, 6))
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5 * float(expected.amax()))


class ZeroShot(nn.Module):
    """An image tower and the embeddings of K texts [K,D] as a classifier: logits are scaled cosines."""

    def __init__(self, tower: nn.Module, texts: Tensor) -> None:
        super().__init__()
        self.tower, self.texts = tower, nn.Parameter(F.normalize(texts, dim=1))

    def forward(self, images: Tensor) -> Tensor:
        return 100 * F.normalize(self.tower(images), dim=1) @ self.texts.T


@pytest.mark.parametrize("name", ["vit_base_patch16_clip_224", "vit_base_patch16_siglip_224"])
def test_a_text_as_a_class_and_as_a_function_of_the_tower(name: str) -> None:
    """The tower alone, whose output is the embedding, is asked for the cosine; as a classifier, for the class."""
    tower = made(name, SMALL, classes=0)
    texts, images = torch.randn(3, 48), torch.randn(2, 3, *SIZE)
    assert tower(images).shape == (2, 48)
    labels = ["grad_cam", "layer_cam", "score_cam", *ATTENTION]
    classes = gb.explain(ZeroShot(tower, texts).eval(), images, [2, 0], labels, "tower.blocks.1.norm1")
    near = [lambda output, t=t: 100 * F.cosine_similarity(output, texts[t][None]) for t in (2, 0)]
    functions = gb.explain(tower, images, near, labels, "blocks.1.norm1")
    for label, maps in classes.items():
        assert maps.any(), label
        torch.testing.assert_close(functions[label], maps, rtol=1e-3, atol=1e-4 * float(maps.abs().amax()), msg=label)


@pytest.mark.parametrize("method", ATTENTION)
@pytest.mark.parametrize("name", ["swin_tiny_patch4_window7_224", "maxvit_rmlp_pico_rw_256", "test_convnext"])
def test_attention_in_windows_is_refused_by_the_methods_name(name: str, method: str) -> None:
    options, layer, *_ = OTHERS[name]
    why = "has no attention" if "conv" in name else "attends to windows of the image"
    with pytest.raises(gb.UserError, match=f"^{method} does not apply: this network {why}"):
        gb.explain(made(name, options), torch.randn(2, 3, *SIZE), [1, 2], [method], layer)


REFUSED = {
    "cait_xxs24_224": SMALL | {"embed_dim": 48, "num_heads": 3},
    "xcit_nano_12_p16_224": {"depth": 2, "img_size": SIZE},
    "pvt_v2_b0": {},
    "pit_ti_224": {"img_size": SIZE},
}


@pytest.mark.parametrize("name", REFUSED)
def test_attention_that_is_not_token_by_token_is_refused(name: str) -> None:
    model = made(name, REFUSED[name])
    layer = next(n for n, module in model.named_modules() if isinstance(module, nn.Conv2d))
    with pytest.raises(
        gb.UserError, match=r"^generic_attention does not apply: the .*tokens of this network's attention"
    ):
        gb.explain(model, torch.randn(2, 3, *SIZE), [1, 2], ["generic_attention"], layer)
