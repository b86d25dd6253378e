"""A Llama in double precision, independent of ggml: what the engine's logprobs are held against.

usage: reference.py MODEL.gguf < {"prompts": [[token, ...], ...], "tokens": N} > result
Called by make-fixture.ts; needs numpy. Reads F32 and Q8_0 weights; nothing is quantised on the way.
The result, a prompt each: the logprob of every prompt token but the first, and of N greedy tokens after it, with the
lead of each greedy token over the second likeliest.
"""

import json
import struct
import sys

import numpy as np

FORMATS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}


class Reader:
    def __init__(self, data):
        self.data, self.at = data, 0

    def one(self, form):
        (value,) = struct.unpack_from("<" + form, self.data, self.at)
        self.at += struct.calcsize("<" + form)
        return value

    def text(self):
        length = self.one("Q")
        self.at += length
        return self.data[self.at - length : self.at].decode("utf-8", "replace")

    def value(self, kind):
        if kind == 8:
            return self.text()
        if kind == 9:
            of, count = self.one("I"), self.one("Q")
            return [self.value(of) for _ in range(count)]
        return self.one(FORMATS[kind])


def matrix(data, shape, kind):
    count = int(np.prod(shape))
    if kind == 0:
        values = np.frombuffer(data, "<f4", count).astype(np.float64)
    elif kind == 8:
        blocks = np.frombuffer(data, np.dtype([("scale", "<f2"), ("values", "i1", 32)]), count // 32)
        values = (blocks["scale"].astype(np.float64)[:, None] * blocks["values"].astype(np.float64)).reshape(-1)
    else:
        raise SystemExit(f"tensor type {kind}")
    return values.reshape(shape[::-1])


def read(path):
    data = open(path, "rb").read()
    reader = Reader(data)
    reader.at = 8
    tensors, pairs = reader.one("Q"), reader.one("Q")
    meta = {}
    for _ in range(pairs):
        key = reader.text()
        meta[key] = reader.value(reader.one("I"))
    infos = []
    for _ in range(tensors):
        name = reader.text()
        shape = [reader.one("Q") for _ in range(reader.one("I"))]
        infos.append((name, shape, reader.one("I"), reader.one("Q")))
    start = -(-reader.at // 32) * 32
    return meta, {name: matrix(data[start + offset :], shape, kind) for name, shape, kind, offset in infos}


class Llama:
    def __init__(self, path):
        meta, self.weights = read(path)
        self.layers = meta["llama.block_count"]
        self.heads = meta["llama.attention.head_count"]
        self.kv_heads = meta["llama.attention.head_count_kv"]
        self.eps = meta["llama.attention.layer_norm_rms_epsilon"]
        self.base = float(meta.get("llama.rope.freq_base", 10000.0))
        self.width = meta["llama.embedding_length"] // self.heads
        assert meta["llama.rope.dimension_count"] == self.width

    def norm(self, x, name):
        return x / np.sqrt(np.mean(x * x, axis=-1, keepdims=True) + self.eps) * self.weights[name]

    def rotate(self, x):
        """Pairs of neighbouring dimensions, as the llama architecture of GGUF has them. x: [tokens, heads, width]"""
        angles = np.arange(len(x))[:, None] * self.base ** (-np.arange(0, self.width, 2) / self.width)
        cos, sin = np.cos(angles)[:, None, :], np.sin(angles)[:, None, :]
        even, odd = x[..., 0::2], x[..., 1::2]
        return np.stack([even * cos - odd * sin, even * sin + odd * cos], axis=-1).reshape(x.shape)

    def attention(self, x, block):
        of = lambda name, heads: (x @ self.weights[f"{block}.attn_{name}.weight"].T).reshape(len(x), heads, self.width)
        q, k, v = self.rotate(of("q", self.heads)), self.rotate(of("k", self.kv_heads)), of("v", self.kv_heads)
        k, v = (np.repeat(part, self.heads // self.kv_heads, axis=1) for part in (k, v))
        scores = np.einsum("qhd,khd->hqk", q, k) / np.sqrt(self.width)
        scores = np.where(np.tril(np.ones(scores.shape[1:], bool)), scores, -np.inf)
        weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
        weights /= weights.sum(axis=-1, keepdims=True)
        out = np.einsum("hqk,khd->qhd", weights, v).reshape(len(x), -1)
        return out @ self.weights[f"{block}.attn_output.weight"].T

    def logprobs(self, tokens):
        """Shape [tokens, vocabulary]."""
        x = self.weights["token_embd.weight"][tokens]
        for layer in range(self.layers):
            block = f"blk.{layer}"
            x = x + self.attention(self.norm(x, f"{block}.attn_norm.weight"), block)
            y = self.norm(x, f"{block}.ffn_norm.weight")
            gate = y @ self.weights[f"{block}.ffn_gate.weight"].T
            up = y @ self.weights[f"{block}.ffn_up.weight"].T
            x = x + (gate / (1 + np.exp(-gate)) * up) @ self.weights[f"{block}.ffn_down.weight"].T
        output = self.weights.get("output.weight", self.weights["token_embd.weight"])
        logits = self.norm(x, "output_norm.weight") @ output.T
        most = logits.max(axis=-1, keepdims=True)
        return logits - most - np.log(np.exp(logits - most).sum(axis=-1, keepdims=True))


def answer(model, prompt, count):
    tokens = list(prompt)
    greedy = []
    rows = model.logprobs(tokens)
    result = [rows[at][token] for at, token in enumerate(prompt[1:])]
    for _ in range(count):
        first, second = np.argsort(rows[-1])[::-1][:2]
        lead = rows[-1][first] - rows[-1][second]
        greedy.append({"token": int(first), "logprob": float(rows[-1][first]), "lead": float(lead)})
        tokens.append(int(first))
        rows = model.logprobs(tokens)
    return {"prompt": prompt, "logprobs": [float(value) for value in result], "greedy": greedy}


def main():
    wanted = json.load(sys.stdin)
    model = Llama(sys.argv[1])
    json.dump([answer(model, prompt, wanted["tokens"]) for prompt in wanted["prompts"]], sys.stdout)


main()
