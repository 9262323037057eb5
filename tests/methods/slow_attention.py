"""A vision transformer of torchvision taken apart, and the methods on attention in plain loops."""

import torch
from torch.nn import functional as F


def pieces(model, image):
    """Tokens [N,C] of one image [3,H,W] before the blocks, and the blocks."""
    tokens = model.conv_proj(image[None]).flatten(2).transpose(1, 2)
    tokens = torch.cat([model.class_token, tokens], 1) + model.encoder.pos_embedding
    return tokens, list(model.encoder.layers)


def block(layer, tokens, weights=None):
    """What a block gives and its attention weights [heads,N,N]; with weights, in their place."""
    normed = layer.ln_1(tokens)
    attention = layer.self_attention
    if weights is None:
        weights = attention(normed, normed, normed, need_weights=True, average_attn_weights=False)[1][0].detach()
    width, heads = attention.embed_dim, attention.num_heads
    values = F.linear(normed, attention.in_proj_weight[2 * width :], attention.in_proj_bias[2 * width :])[0]
    mixed = []
    for head in range(heads):
        part = values[:, head * width // heads : (head + 1) * width // heads]
        mixed.append(weights[head] @ part)
    tokens = tokens + attention.out_proj(torch.cat(mixed, 1))[None]
    return tokens + layer.mlp(layer.ln_2(tokens)), weights


def head(model, tokens):
    """Logits [K] from the class token of tokens [1,N,C]."""
    return model.heads(model.encoder.ln(tokens)[:, 0])[0]


def attention(model, image, target):
    """Every block's weights [heads,N,N], and the gradients of the class's score there: each weight a leaf."""
    tokens, layers = pieces(model, image)
    found = []
    for layer in layers:
        tokens, weights = block(layer, tokens)
        found.append(weights)
    leaves = [weights.clone().requires_grad_() for weights in found]
    # The gradient at one block's weights, through later blocks whose own weights follow: queries and keys depend too.
    gradients = []
    for n in range(len(layers)):
        tokens = pieces(model, image)[0]
        for m, layer in enumerate(layers):
            if m <= n:
                tokens, _ = block(layer, tokens, leaves[m] if m == n else found[m])
            else:
                tokens = layer(tokens)
        gradients.append(torch.autograd.grad(head(model, tokens)[target], leaves[n])[0])
    return found, gradients


def rollout(model, image, target):
    tokens, layers = pieces(model, image)
    result = torch.eye(tokens.shape[1])
    for layer in layers:
        tokens, one = block(layer, tokens)
        mean = sum(one) / len(one)
        result = (0.5 * mean + 0.5 * torch.eye(len(mean), dtype=mean.dtype)) @ result
    return result[0, 1:]


def generic(model, image, target):
    weights, gradients = attention(model, image, target)
    result = torch.eye(weights[0].shape[1], dtype=weights[0].dtype)
    for one, grad in zip(weights, gradients):
        mean = torch.zeros_like(result)
        for a, g in zip(one, grad):
            mean += (a * g).clamp(min=0) / len(one)
        result = result + mean @ result
    return result[0, 1:]


def le_grad(model, image, target, layers=None):
    tokens, blocks = pieces(model, image)
    maps = []
    for layer in blocks:
        given = tokens.detach()
        tokens, weights = block(layer, given)
        leaf = weights.clone().requires_grad_()
        own, _ = block(layer, given, leaf)
        score = model.heads(model.encoder.ln(own.mean(1)))[0, target]
        grad = torch.autograd.grad(score, leaf)[0].clamp(min=0)
        maps.append(sum(grad[h, i] for h in range(len(grad)) for i in range(len(grad[h]))) / len(grad) / len(grad[0]))
    maps = maps if layers is None else maps[-layers:]
    return (sum(maps) / len(maps))[1:]
