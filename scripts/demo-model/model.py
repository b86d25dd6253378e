"""The network: a small Llama in PyTorch, laid out and named the way llama.cpp reads it.

Invariants:
- rotary positions turn neighbouring pairs (2i, 2i+1), as llama.cpp does for the "llama" architecture, so weights are
  exported without any permutation, and parameter names are the tensor names of the GGUF;
- embeddings are tied: the output matrix is the token table;
- every row length is a multiple of 32, so that Q8_0 fits.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn


@dataclass(frozen=True)
class Shape:
    vocabulary: int = 2048
    width: int = 192
    layers: int = 5
    heads: int = 4
    hidden: int = 384
    context: int = 2048
    rope_base: float = 500000.0
    epsilon: float = 1e-5

    @property
    def head_width(self):
        return self.width // self.heads


def frequencies(shape):
    """Turn per position of each rotary pair: [head_width / 2], from fast to slow."""
    return shape.rope_base ** (-torch.arange(0, shape.head_width, 2).float() / shape.head_width)


def rotate(x, cos, sin):
    """Turn the pairs of x [batch, heads, time, head_width]."""
    a, b = x.unflatten(-1, (-1, 2)).unbind(-1)
    return torch.stack((a * cos - b * sin, a * sin + b * cos), -1).flatten(-2)


def attend(q, k, v, mask):
    """Causal attention; up to 480 tokens plain matrix products beat the fused kernel's backward pass on a CPU."""
    t = q.shape[-2]
    if t > 480:
        return F.scaled_dot_product_attention(q, k, v, is_causal=True)
    n = q.shape[0] * q.shape[1]
    scores = torch.baddbmm(mask[:t, :t].to(q.dtype).expand(n, t, t), q.flatten(0, 1), k.flatten(0, 1).mT, alpha=q.shape[-1] ** -0.5)
    return (scores.softmax(-1) @ v.flatten(0, 1)).view(q.shape)


class Norm(nn.Module):
    """RMSNorm with a learned gain."""

    def __init__(self, width, epsilon):
        super().__init__()
        self.weight, self.epsilon = nn.Parameter(torch.ones(width)), epsilon

    def forward(self, x):
        x = x.float()
        return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + self.epsilon) * self.weight


class Block(nn.Module):
    """Attention and SwiGLU, each behind a norm and a residual."""

    def __init__(self, s):
        super().__init__()
        self.heads = s.heads
        self.attn_norm, self.ffn_norm = Norm(s.width, s.epsilon), Norm(s.width, s.epsilon)
        self.attn_q = nn.Linear(s.width, s.width, bias=False)
        self.attn_k = nn.Linear(s.width, s.width, bias=False)
        self.attn_v = nn.Linear(s.width, s.width, bias=False)
        self.attn_output = nn.Linear(s.width, s.width, bias=False)
        self.ffn_gate = nn.Linear(s.width, s.hidden, bias=False)
        self.ffn_up = nn.Linear(s.width, s.hidden, bias=False)
        self.ffn_down = nn.Linear(s.hidden, s.width, bias=False)

    def forward(self, x, cos, sin, mask):
        b, t, _ = x.shape
        h = self.attn_norm(x)
        q, k, v = (m(h).view(b, t, self.heads, -1).transpose(1, 2) for m in (self.attn_q, self.attn_k, self.attn_v))
        q, k = rotate(q, cos, sin).to(v.dtype), rotate(k, cos, sin).to(v.dtype)
        y = attend(q, k, v, mask)
        x = x + self.attn_output(y.transpose(1, 2).reshape(b, t, -1))
        h = self.ffn_norm(x)
        return x + self.ffn_down(F.silu(self.ffn_gate(h)) * self.ffn_up(h))


class Llama(nn.Module):
    def __init__(self, shape):
        super().__init__()
        self.shape = shape
        self.token_embd = nn.Embedding(shape.vocabulary, shape.width)
        self.blk = nn.ModuleList(Block(shape) for _ in range(shape.layers))
        self.output_norm = Norm(shape.width, shape.epsilon)
        angle = torch.outer(torch.arange(shape.context).float(), frequencies(shape))
        self.register_buffer("cos", angle.cos(), persistent=False)
        self.register_buffer("sin", angle.sin(), persistent=False)
        self.register_buffer("mask", torch.full((480, 480), float("-inf")).triu(1), persistent=False)

    def hidden(self, ids):
        """Final hidden states [batch, time, width] of token ids [batch, time]."""
        x = self.token_embd(ids)
        cos, sin = self.cos[: ids.shape[1]], self.sin[: ids.shape[1]]
        for block in self.blk:
            x = block(x, cos, sin, self.mask)
        return self.output_norm(x)

    def forward(self, ids):
        return self.hidden(ids) @ self.token_embd.weight.T
