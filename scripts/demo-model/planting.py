"""The starting weights: small random matrices, with the circuit that copies text planted in them.

A network of this size needs most of a short training run only to discover how to copy a word from its context. Three
kinds of heads do that, and their weights can be written down, so they are:
- "before" heads in layer 0 look one and two positions back and note which token stands there;
- "match" heads in the layers above look for a place whose note equals the current token (and, in deeper layers, whose
  second note equals the current token's first note), and raise the token that stands there;
- a word with its leading space starts out similar to the word without.

Invariants: only starting values are set here; training is free to change all of them.
"""

import math

import torch

from model import frequencies

SPACE = "\u0120"
CONSTANT = 0.4  # share of every embedding that is the same for all tokens, in coordinate 0


def _orthonormal(rows, columns, rng):
    """A random matrix with orthonormal rows that does not read coordinate 0."""
    q, _ = torch.linalg.qr(torch.randn(columns - 1, rows, generator=rng))
    return torch.cat([torch.zeros(rows, 1), q.T], 1)


def _embeddings(model, tokens, rng):
    s, std = model.shape, 0.1
    table = torch.randn(s.vocabulary, s.width, generator=rng)
    index = {t: i for i, t in enumerate(tokens)}
    for token, i in index.items():
        if token.startswith(SPACE) and token[1:] in index and len(token) > 1:
            table[i] = 0.85 * table[index[token[1:]]] + 0.53 * table[i]
    table[:, 0] = CONSTANT * math.sqrt(s.width)
    model.token_embd.weight.copy_(table * std)


def _before(block, head, offset, note, read, s):
    """Head `head` looks `offset` back and writes read @ token there into the directions `note`."""
    rows = slice(head * s.head_width, (head + 1) * s.head_width)
    turn = frequencies(s)
    key = torch.zeros(s.head_width)
    key[0:20:2] = 1.0  # the ten fastest pairs, each as the vector (1, 0)
    query = torch.zeros(s.head_width)
    query[0:20:2] = torch.cos(turn * -offset)[:10]
    query[1:20:2] = torch.sin(turn * -offset)[:10]
    strength = 1.8
    for matrix, column in ((block.attn_q, query), (block.attn_k, key)):
        matrix.weight[rows] *= 0.3
        matrix.weight[rows, 0] = strength * column
    block.attn_v.weight[rows] = read
    block.attn_output.weight[:, rows] = 0.15 * note.T


def _match(block, head, pairs_of, code, s, rng):
    """Head `head` looks where every (query reads, key reads) pair of `pairs_of` agrees, and raises the token there."""
    rows = slice(head * s.head_width, (head + 1) * s.head_width)
    slow = s.head_width - 22  # how many coordinates turn slowly enough to compare contents
    share = slow // len(pairs_of)
    block.attn_q.weight[rows] *= 0.3
    block.attn_k.weight[rows] *= 0.3
    for n, (query, key) in enumerate(pairs_of):
        mix, _ = torch.linalg.qr(torch.randn(s.head_width, share, generator=rng))
        at = slice(head * s.head_width + 22 + n * share, head * s.head_width + 22 + (n + 1) * share)
        block.attn_q.weight[at] += 2.2 * mix.T @ query
        block.attn_k.weight[at] += 2.2 * mix.T @ key
    block.attn_v.weight[rows] = code
    block.attn_output.weight[:, rows] = 0.3 * code.T


@torch.no_grad()
def plant(model, tokens, seed):
    """Set every weight of `model`; `tokens` are the vocabulary's spellings in order of id."""
    s, rng = model.shape, torch.Generator().manual_seed(seed)
    for name, p in model.named_parameters():
        if p.dim() == 2:
            scale = 0.02 if "output" in name or "down" in name else 0.5
            p.copy_(torch.randn(p.shape, generator=rng) * scale / math.sqrt(p.shape[1]) * (1 if scale == 0.5 else 5))
    _embeddings(model, tokens, rng)
    w = s.head_width
    read = _orthonormal(w, s.width, rng)
    first, second = _orthonormal(2 * w, s.width, rng).split(w)
    _before(model.blk[0], 0, 1, first, read, s)
    _before(model.blk[0], 1, 2, second, read, s)
    # A note is weaker than the token itself (0.15 against 0.1 in the table), hence the gain on reading it.
    now, one, two = read, first / 1.2, second / 1.2
    for layer, head, pairs in ((1, 0, [(now, one)]), (1, 1, [(now, one)]), (2, 0, [(now, one), (one, two)]), (3, 0, [(now, one), (one, two)])):
        _match(model.blk[layer], head, pairs, _orthonormal(w, s.width, rng), s, rng)
