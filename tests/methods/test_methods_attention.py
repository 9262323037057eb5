"""Methods on attention: by hand, against loops, on every way in which attention is computed, and what they refuse."""

import networks
import pytest
import slow_attention
import torch
import torchvision
from torch import nn
from torch.nn import functional as F

import gradcam_bench as gb
from gradcam_bench.attentions import Attended, Attentions
from gradcam_bench.errors import UserError
from gradcam_bench.ledger import Cost
from gradcam_bench.methods import attention
from gradcam_bench.probe import Probe

METHODS = ("attention_rollout", "generic_attention", "le_grad", "le_grad_code")
FIRST, SECOND = (0.5, 0.25, 0.25), (0.1, 0.2, 0.7)


class Fixed(nn.Module):
    """x + A x over the class token and two patches, A the same whatever x is."""

    def __init__(self, *heads):
        super().__init__()
        self.logits = torch.tensor(heads).log()[None]

    def forward(self, x):
        weights = self.logits.expand(len(x), -1, -1, -1).softmax(-1)
        return x + (weights @ x[:, None]).mean(1)


class Toy(nn.Module):
    """Tokens of one channel: 1, then the red of an image of two pixels. Scores: the class token and minus it."""

    def __init__(self, *blocks):
        super().__init__()
        self.patches, self.blocks = nn.Conv2d(3, 1, 1, bias=False), nn.Sequential(*blocks)
        self.patches.weight.data = torch.tensor([1.0, 0.0, 0.0]).reshape(1, 3, 1, 1)

    def forward(self, images):
        x = self.patches(images).flatten(2).transpose(1, 2)
        x = self.blocks(torch.cat([torch.ones_like(x[:, :1]), x], 1))
        return torch.cat([x[:, 0], -x[:, 0]], 1)


def toy(heads, red=(2.0, -4.0)):
    """Maps of both classes by each method, with one block: tokens are 1, 2, -4."""
    image = torch.zeros(1, 3, 1, 2)
    image[0, 0, 0] = torch.tensor(red)
    index = torch.tensor([0, 0])
    found = gb.explain(Toy(Fixed(*heads)), image, [0, 1], METHODS, "patches", index)
    return {name: maps.flatten(1) for name, maps in found.items()}


def test_one_block_of_one_head_by_hand():
    """The class token reads A = (1/2, 1/4, 1/4), so its gradient there is the tokens themselves, 1, 2, -4."""
    found = toy([[FIRST, SECOND, SECOND]])
    close(found["attention_rollout"], [[1 / 8, 1 / 8], [1 / 8, 1 / 8]])
    close(found["generic_attention"], [[1 / 2, 0], [0, 1]])
    # The mean token's gradient at each of three queries is a third of 1, 2, -4; the mean over them the same.
    close(found["le_grad"], [[2 / 3, 0], [0, 4 / 3]])
    assert torch.equal(found["le_grad"], found["le_grad_code"])


def test_two_heads_by_hand():
    """Both heads hand on the same tokens and are averaged, so each has half the gradient: 1/2, 1, -2."""
    found = toy([[FIRST, SECOND, SECOND], [(0.2, 0.8, 0.0), SECOND, SECOND]])
    close(found["attention_rollout"], [[(0.25 + 0.8) / 4, 0.25 / 4]] * 2)
    close(found["generic_attention"], [[(0.25 + 0.8) / 2, 0], [0, 0.5 / 2]])
    close(found["le_grad"], [[1 / 3, 0], [0, 2 / 3]])


def test_two_blocks_by_hand():
    """Tokens 1, 2, 0; A of both blocks: the class token half itself, half the first patch; patches themselves."""
    heads = [[(0.5, 0.5, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0)]]
    image = torch.zeros(1, 3, 1, 2)
    image[0, 0, 0, 0] = 2.0
    found = gb.explain(Toy(Fixed(*heads), Fixed(*heads)), image, [0], METHODS, "patches")
    # (A + I)/2 has rows (3/4, 1/4, 0), (0, 1, 0), (0, 0, 1): squared, its first is (9/16, 3/16 + 1/4, 0).
    close(found["attention_rollout"].flatten(1), [[7 / 16, 0]])
    # After block 1 the tokens are 2.5, 4, 0. G_2 = (2.5, 4, 0) in the class token's row; the score takes 1.5 of the
    # class token and 0.5 of the first patch, so G_1 is 1.5 (1, 2, 0) there and 0.5 (1, 2, 0) in the patch's row.
    first = torch.tensor([[1.5 * 0.5, 1.5 * 2 * 0.5, 0], [0, 0.5 * 2, 0], [0, 0, 0]])
    second = torch.tensor([[2.5 * 0.5, 4 * 0.5, 0], [0, 0, 0], [0, 0, 0]])
    relevance = (torch.eye(3) + second) @ (torch.eye(3) + first)
    close(found["generic_attention"].flatten(1), [relevance[0, 1:].tolist()])
    # Own scores: a third of the tokens that a block is given, in every row: 1, 2, 0 and 2.5, 4, 0.
    close(found["le_grad"].flatten(1), [[(2 + 4) / 3 / 2, 0]])


def close(found, expected):
    torch.testing.assert_close(found, torch.as_tensor(expected), rtol=1e-5, atol=1e-6)


def vit(depth=3, side=32, classes=5):
    torch.manual_seed(0)
    model = torchvision.models.VisionTransformer(side, 8, depth, 2, 12, 20, num_classes=classes)
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.3)
    return model.eval()


SLOW = {
    "attention_rollout": slow_attention.rollout,
    "generic_attention": slow_attention.generic,
    "le_grad": slow_attention.le_grad,
    "le_grad_code": lambda *given: slow_attention.le_grad(*given, layers=2),
}


@pytest.mark.parametrize("name", SLOW)
def test_a_vision_transformer_of_torchvision_against_loops(name):
    model, images, index = vit(), torch.randn(3, 3, 32, 32), torch.tensor([0, 2, 2, 1])
    targets = [1, 3, 0, 3]
    found = gb.explain(model, images, targets, [name], "encoder.layers.encoder_layer_2.ln_1", index)[name]
    expected = torch.stack([SLOW[name](model, images[b], t) for b, t in zip(index, targets)]).unflatten(1, (4, 4))
    assert expected.amax() > 0
    torch.testing.assert_close(found, expected.detach(), rtol=1e-4, atol=1e-5 * float(expected.amax()))


@pytest.mark.slow
@pytest.mark.parametrize("name", SLOW)
def test_vit_b_16_against_loops(name):
    """Twelve blocks of twelve heads over 196 patches, random weights."""
    torch.manual_seed(0)
    model, image = torchvision.models.vit_b_16(weights=None).eval(), torch.randn(1, 3, 224, 224)
    nn.init.normal_(model.heads.head.weight, std=0.1)
    found = gb.explain(model, image, [7], [name], "encoder.layers.encoder_layer_11.ln_1")[name]
    expected = SLOW[name](model, image[0], 7).detach().reshape(1, 14, 14)
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4 * float(expected.amax()))


@pytest.mark.parametrize("name", METHODS)
def test_a_function_as_target_and_other_scores(name):
    model, images = vit(), torch.randn(2, 3, 32, 32)
    layer = "encoder.layers.encoder_layer_2.ln_1"
    plain = gb.explain(model, images, [1, 3], [name], layer)[name]
    functions = [lambda output: output[:, 1], lambda output: output[:, 3]]
    assert torch.equal(gb.explain(model, images, functions, [name], layer)[name], plain)
    doubled = gb.explain(model, images, [lambda output: 2 * output[:, 1], 3], [name], layer)[name]
    assert torch.equal(doubled[1], plain[1])
    if name.startswith("le_grad"):
        torch.testing.assert_close(doubled[0], 2 * plain[0])
    if name == "attention_rollout":
        assert torch.equal(doubled[0], plain[0])


def attentions(model, images, targets, index=None, layer="patches", score="logit", **more):
    probe = Probe(model, [layer], score)
    cost = Cost()
    return Attentions(probe, images, targets, index, cost, label="mine", **more), cost


def test_what_is_seen_is_what_autograd_says():
    """Weights and gradients of a network whose attention is fused, against one that writes it out."""
    halves = networks.attending()
    images, targets, index = halves.images(3), [1, 3, 0], torch.tensor([0, 2, 2])
    seen = []

    def keep(attended):
        seen.append(attended)
        return attended.weights[0][:, 0, 0]

    made, cost = attentions(halves.model, images, targets, index)
    made.maps(keep)
    (attended,) = seen
    leaves, outputs = [], []
    for q, b in enumerate(index.tolist()):
        one, output = written_out(halves.model, images[b : b + 1])
        leaves.append(one)
        outputs.append(torch.autograd.grad(output[0, targets[q]], one))
    for block in range(2):
        expected = torch.cat([one[block] for one in leaves]).detach()
        torch.testing.assert_close(attended.weights[block], expected, rtol=1e-5, atol=1e-7)
        torch.testing.assert_close(attended.gradients[block], torch.cat([g[block] for g in outputs]), rtol=1e-4, atol=0)
    assert attended.reads.tolist() == [[1.0] + [0.0] * 64] * 3
    assert cost == Cost(forwards=2, backwards=3)


def written_out(model, image):
    """Weights [1,heads,N,N] of both blocks as nodes of a graph, and the output [1,4]."""
    x = model.patches(image).flatten(2).transpose(1, 2)
    x = torch.cat([model.first, x], 1)
    nodes = []
    for block in model.blocks:
        q, k, v = (part.unflatten(2, (2, -1)).transpose(1, 2) for part in block.qkv(block.norm1(x)).chunk(3, 2))
        nodes.append((4 * q @ k.transpose(2, 3) / 2).softmax(3))
        x = x + (nodes[-1] @ v).transpose(1, 2).flatten(2)
        x = x + block.out(x).tanh()
    return nodes, model.fc(x[:, 0])


class Reading(nn.Module):
    """One block of attention on 3 registers and the patches of `Toy`; the score is read from some tokens."""

    def __init__(self, tokens):
        super().__init__()
        self.patches, self.block, self.tokens = nn.Conv2d(3, 4, 1), nn.Sequential(networks.Attention(4)), tokens

    def forward(self, images):
        x = self.patches(images).flatten(2).transpose(1, 2)
        x = self.block(torch.cat([torch.zeros_like(x[:, :1]).expand(-1, 3, -1) + torch.arange(3.0)[:, None], x], 1))
        return x[:, self.tokens].mean(1)


@pytest.mark.parametrize("tokens", [[0], [0, 2], [3, 4, 5, 6, 7, 8]])
def test_the_tokens_that_a_score_is_read_from(tokens):
    torch.manual_seed(0)
    made, _ = attentions(Reading(tokens).eval(), torch.randn(2, 3, 2, 3), [0, 3])
    seen = []
    maps = made.maps(lambda attended: seen.append(attended) or attended.reads)
    expected = torch.zeros(9)
    expected[tokens] = 1 / len(tokens)
    assert torch.equal(seen[0].reads, expected.expand(2, -1))
    assert torch.equal(maps, expected[3:].reshape(1, 2, 3).expand(2, -1, -1))


def test_a_score_that_depends_on_no_token_reads_none():
    model = networks.attending().model.float()
    with torch.no_grad():
        model.fc.weight[2] = 0
    images = torch.randn(2, 3, 32, 32)
    found = gb.explain(model, images, [2, 1], METHODS, "blocks.0.norm1")
    for maps in found.values():
        assert not maps[0].any()
        assert maps[1].any()


def test_rows_of_a_rollout_sum_to_one_and_zero_gradients_leave_the_identity():
    halves = networks.attending()
    made, _ = attentions(halves.model, halves.images(2), [1, 2])
    seen = []
    made.maps(lambda attended: seen.append(attended) or attended.reads)
    weights = [one.mean(1) for one in seen[0].weights]
    eye = torch.eye(65, dtype=torch.float64)
    for token in (0, 7, 64):
        row = attention.rolled([(one + eye) / 2 for one in weights], eye[token].expand(2, -1))
        torch.testing.assert_close(row.sum(1), torch.ones(2, dtype=torch.float64))
        assert torch.equal(attention.rolled([one * 0 + eye for one in weights], row), row)


class Given:
    """Attention that somebody wrote down, as the methods take it."""

    def __init__(self, weights, gradients, reads):
        self.attended = Attended(weights, gradients, reads)

    def maps(self, relevance, gradients=True):
        return relevance(self.attended)


def test_zero_gradients_and_a_pooling_by_attention_at_the_end():
    """The pooling has one query and no residual: its weights read the rows."""
    torch.manual_seed(0)
    weights = [torch.rand(1, 2, 3, 3).softmax(3), torch.tensor([[[[0.2, 0.3, 0.5]], [[0.4, 0.6, 0.0]]]])]
    reads, pool = torch.ones(1, 1), torch.tensor([0.3, 0.45, 0.25])
    nothing = [torch.zeros_like(one) for one in weights]
    assert not attention.generic_attention(Given(weights, nothing, reads)).any()
    found = attention.attention_rollout(Given(weights, nothing, reads))
    torch.testing.assert_close(found[0], pool @ (weights[0][0].mean(0) + torch.eye(3)) / 2)
    ones = [torch.zeros_like(weights[0]), torch.ones_like(weights[1])]
    torch.testing.assert_close(attention.generic_attention(Given(weights, ones, reads))[0], pool)


def test_averaged_tokens_leave_their_own_share_out():
    """R - I, its rows averaged: against the matrices multiplied out."""
    torch.manual_seed(0)
    weights = [torch.rand(2, 3, 4, 4, dtype=torch.float64) for _ in range(3)]
    gradients = [torch.randn(2, 3, 4, 4, dtype=torch.float64) for _ in range(3)]
    reads = torch.tensor([[0.0, 0.5, 0.5, 0.0], [1.0, 0.0, 0.0, 0.0]], dtype=torch.float64)
    found = attention.generic_attention(Given(weights, gradients, reads))
    for q in range(2):
        whole = torch.eye(4, dtype=torch.float64)
        for a, g in zip(weights, gradients):
            whole = whole + (a[q] * g[q]).clamp(min=0).mean(0) @ whole
        torch.testing.assert_close(found[q], reads[q] @ (whole - torch.eye(4)))


def test_rollout_knows_no_class_and_the_others_do():
    halves = networks.attending()
    halves.model.float()
    found = gb.explain(
        halves.model, halves.images(1).float(), [1, 2], METHODS, halves.layer, image_index=torch.tensor([0, 0])
    )
    for name, maps in found.items():
        assert torch.allclose(maps[0], maps[1], rtol=1e-5) == (name == "attention_rollout")
        assert maps.min() >= 0


@pytest.mark.parametrize("budget", [1, 2**30])
def test_no_map_depends_on_the_memory(budget):
    halves = networks.attending()
    images = halves.images(5).float()
    index = torch.tensor([4, 0, 3, 4])
    halves.model.float()
    whole = gb.explain(halves.model, images, [1, 0, 2, 3], METHODS, halves.layer, index)
    for name in METHODS:
        made, cost = attentions(halves.model, images, [1, 0, 2, 3], index, budget=budget)
        found = getattr(attention, name.removesuffix("_code"))(made, **({"layers": 2} if "code" in name else {}))
        torch.testing.assert_close(found, whole[name], rtol=1e-5, atol=1e-6 * float(whole[name].amax()))
        assert cost == Cost(forwards=3, backwards=4)


def test_scores_that_are_no_logits():
    halves = networks.attending()
    made, _ = attentions(halves.model, halves.images(2), [1, 2], score="log_softmax")
    seen = []
    made.maps(lambda attended: seen.append(attended) or attended.reads)
    nodes, output = written_out(halves.model, halves.images(2)[:1])
    expected = torch.autograd.grad(output.log_softmax(1)[0, 1], nodes[1])[0]
    torch.testing.assert_close(seen[0].gradients[1][:1], expected, rtol=1e-4, atol=1e-9)


def fast_path(*_args, **_kwargs):
    raise AssertionError("the fast path was taken")


class Encoder(nn.Module):
    """PyTorch's own encoder layers, which have a fast path of their own."""

    def __init__(self):
        super().__init__()
        self.patches = nn.Conv2d(3, 8, 8, 8)
        layer = nn.TransformerEncoderLayer(8, 2, 12, batch_first=True)
        self.layers, self.fc = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False), nn.Linear(8, 4)

    def forward(self, images):
        return self.fc(self.layers(self.patches(images).flatten(2).transpose(1, 2)).mean(1))


def test_the_fast_paths_of_pytorchs_modules_are_not_taken(monkeypatch):
    torch.manual_seed(0)
    encoder, images = Encoder().eval(), torch.randn(2, 3, 32, 32)
    plain = gb.explain(encoder, images, [1, 2], ["grad_cam"], "patches")
    monkeypatch.setattr(torch, "_native_multi_head_attention", fast_path)
    monkeypatch.setattr(torch, "_transformer_encoder_layer_fwd", fast_path)
    for model, layer in ((encoder, "patches"), (vit(), "conv_proj")):
        for parameter in model.parameters():
            parameter.requires_grad_(False)
        made, _ = attentions(model, images, [1, 2], layer=layer)
        for method in (attention.attention_rollout, attention.generic_attention, attention.le_grad):
            assert method(made).amax((1, 2)).min() > 0
    monkeypatch.undo()
    assert torch.equal(gb.explain(encoder, images, [1, 2], ["grad_cam"], "patches")["grad_cam"], plain["grad_cam"])


class Asking(nn.Module):
    """A block that asks PyTorch's attention for its weights too."""

    def __init__(self, averaged):
        super().__init__()
        self.attention, self.averaged = nn.MultiheadAttention(4, 2, batch_first=True), averaged

    def forward(self, x):
        mixed, weights = self.attention(x, x, x, average_attn_weights=self.averaged)
        assert weights.shape == ((len(x), 9, 9) if self.averaged else (len(x), 2, 9, 9))
        return x + mixed * weights.sum(-1).reshape(len(x), -1, 9, 1).mean(1)


@pytest.mark.parametrize("averaged", [True, False])
def test_a_network_that_reads_its_weights_gets_them(averaged):
    torch.manual_seed(0)
    model = Reading([0]).eval()
    model.block = nn.Sequential(Asking(averaged))
    made, _ = attentions(model.eval(), torch.randn(2, 3, 2, 3), [0, 3])
    assert attention.generic_attention(made).any()


MASKS = {
    "plain": {},
    "scale": {"scale": 0.3},
    "causal": {"is_causal": True},
    "boolean mask": {"attn_mask": torch.tensor([[True, False, True], [True, True, True], [False, True, False]])},
    "added mask": {"attn_mask": torch.tensor([[0.0, 1.0, -2.0], [0.5, 0.0, 0.0], [0.0, 0.0, 3.0]])},
    "grouped": {"enable_gqa": True},
}


@pytest.mark.parametrize("name", MASKS)
def test_fused_attention_written_out(name):
    from gradcam_bench.attending import Watching

    torch.manual_seed(0)
    query, key, value = torch.randn(2, 4, 3, 5), torch.randn(2, 4, 3, 5), torch.randn(2, 4, 3, 5)
    if name == "grouped":
        key, value = key[:, :2], value[:, :2]
    plain = F.scaled_dot_product_attention(query, key, value, **MASKS[name])
    with Watching() as seen:
        found = F.scaled_dot_product_attention(query, key, value, **MASKS[name])
    torch.testing.assert_close(found, plain)
    (weights,) = seen.weights
    assert weights.shape == (2, 4, 3, 3)
    torch.testing.assert_close(weights.sum(3), torch.ones(2, 4, 3))


def windows(side=64):
    return torchvision.models.SwinTransformer([4, 4], 12, [1, 1], [1, 2], [4, 4], num_classes=3), side


REFUSED = {
    "a convolutional network": (networks.gap, "this network has no attention"),
    "windows": (lambda: halves_of(*windows()), "this network attends to windows of the image"),
    "no grid": (lambda: halves_of(NoGrid(), 32), "the 5 tokens of this network's attention are no grid"),
    "two numbers of tokens": (lambda: halves_of(Shrinking(), 32), "are not the same from block to block"),
}


def halves_of(model, side):
    layer = next(name for name, module in model.named_modules() if isinstance(module, nn.Conv2d))
    return networks.Halves(model.eval(), layer, model, model, side)


class NoGrid(nn.Module):
    """Tokens that are channels."""

    def __init__(self):
        super().__init__()
        self.conv, self.blocks = nn.Conv2d(3, 5, 4, 4), nn.Sequential(networks.Attention(64))

    def forward(self, images):
        return self.blocks(self.conv(images).flatten(2)).mean(2)


class Shrinking(nn.Module):
    """The second block sees every other token."""

    def __init__(self):
        super().__init__()
        self.conv, self.blocks = nn.Conv2d(3, 4, 4, 4), nn.Sequential(networks.Attention(4), networks.Attention(4))

    def forward(self, images):
        x = self.blocks[0](self.conv(images).flatten(2).transpose(1, 2))
        return self.blocks[1](x[:, ::2]).mean(1)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", REFUSED)
def test_what_does_not_apply_is_said(name, method):
    halves = REFUSED[name][0]()
    halves.model.float()
    images = halves.images(2).float()
    with pytest.raises(UserError, match=f"^{method} does not apply: .*{REFUSED[name][1]}"):
        gb.explain(halves.model, images, [0, 1], [method], halves.layer)


def test_blocks_that_are_in_no_list_have_no_score_of_their_own():
    class Alone(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.only = nn.Conv2d(3, 4, 4, 4), networks.Attention(4)

        def forward(self, images):
            return self.only(self.conv(images).flatten(2).transpose(1, 2)).mean(1)

    torch.manual_seed(0)
    made, _ = attentions(Alone().eval(), torch.randn(2, 3, 32, 32), [0, 1], layer="conv")
    assert attention.generic_attention(made).any()
    with pytest.raises(UserError, match=r"mine does not apply: .* lies in no list of blocks"):
        attention.le_grad(made)


class Turned(nn.Module):
    """PyTorch's encoder layers with tokens first [N,B,C], as OpenAI's CLIP has them; blocks may give tuples."""

    def __init__(self, first, tuples):
        super().__init__()
        self.patches, self.fc, self.first, self.tuples = nn.Conv2d(3, 8, 8, 8), nn.Linear(8, 4), first, tuples
        layers = [nn.TransformerEncoderLayer(8, 2, 12, batch_first=not first) for _ in range(2)]
        self.layers = nn.ModuleList([Tupled(layer) if tuples else layer for layer in layers])

    def forward(self, images):
        x = self.patches(images).flatten(2).transpose(1, 2)
        x = x.transpose(0, 1) if self.first else x
        for layer in self.layers:
            x = layer(x)[0] if self.tuples else layer(x)
        return self.fc(x.mean(0 if self.first else 1))


class Tupled(nn.Module):
    def __init__(self, layer):
        super().__init__()
        self.layer = layer

    def forward(self, x):
        return self.layer(x), None


@pytest.mark.parametrize(("first", "tuples"), [(True, False), (False, True), (True, True)])
def test_tokens_that_come_first_and_blocks_that_give_tuples(first, tuples):
    images, found = torch.randn(3, 3, 32, 32), []
    for order, form in ((False, False), (first, tuples)):
        torch.manual_seed(0)
        made, _ = attentions(Turned(order, form).eval(), images, [1, 2, 0])
        found.append([getattr(attention, name)(made) for name in ("attention_rollout", "generic_attention", "le_grad")])
    for plain, turned in zip(*found):
        assert plain.any()
        torch.testing.assert_close(turned, plain, rtol=1e-4, atol=1e-6 * float(plain.amax()))


class Flattening(nn.Module):
    """A block of attention that gives a map, not tokens."""

    def __init__(self):
        super().__init__()
        self.attention = networks.Attention(4)

    def forward(self, grid):
        return self.attention(grid.flatten(2).transpose(1, 2)).transpose(1, 2).unflatten(2, grid.shape[2:])


def test_blocks_that_give_no_tokens_have_no_mean_of_them():
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 4, 4, 4), nn.Sequential(Flattening(), nn.ReLU()), nn.AdaptiveAvgPool2d(1), nn.Flatten()
    )
    made, _ = attentions(model.eval(), torch.randn(2, 3, 32, 32), [0, 1], layer="0")
    assert attention.generic_attention(made).any()
    with pytest.raises(UserError, match=r"mine does not apply: the blocks of this network do not give tokens"):
        attention.le_grad(made)


@pytest.mark.parametrize("method", METHODS)
def test_the_model_is_left_as_it_was_also_after_an_error(method):
    model = vit().train()
    model.encoder.ln.eval()
    model.conv_proj.weight.requires_grad_(False)
    before = state(model)
    images, layer = torch.randn(2, 3, 32, 32), "encoder.layers.encoder_layer_2.ln_1"
    gb.explain(model, images, [1, 2], [method], layer)
    assert state(model) == before

    def fails(output):
        if torch.is_grad_enabled() and any(module._forward_hooks for module in model.modules()):
            raise AssertionError("hooks are there after the forward pass")
        fails.calls += 1
        if fails.calls > 1:
            raise ZeroDivisionError("mine")
        return output[:, 0]

    fails.calls = 0
    with pytest.raises(UserError, match=f"method {method} failed: ZeroDivisionError: mine"):
        gb.explain(model, images, [fails, 1], [method], layer)
    assert state(model) == before


def state(model):
    hooks = [len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules()]
    flags = [(m.training) for m in model.modules()]
    return hooks, flags, [(p.requires_grad, p.grad is None) for p in model.parameters()]
