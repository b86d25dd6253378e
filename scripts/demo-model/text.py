"""Conversation -> text -> tokens, by the very chat template that the model file carries.

Invariants:
- training text and evaluation prompts come from the same template source, so they cannot drift apart;
- `tojson` gives Python's json.dumps separators and leaves non-ASCII text alone, which is what the server's renderer gives.
"""

import json
import os

import jinja2
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

HERE = os.path.dirname(os.path.abspath(__file__))
CONTROL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
USER_DEFINED = ["<think>", "</think>", "<tool_call>", "</tool_call>"]

with open(os.path.join(HERE, "chat_template.jinja"), encoding="utf-8") as source:
    TEMPLATE_SOURCE = source.read().rstrip("\n")


def _template():
    env = jinja2.Environment(trim_blocks=True, lstrip_blocks=True)
    env.filters["tojson"] = lambda value: json.dumps(value, ensure_ascii=False)
    return env.from_string(TEMPLATE_SOURCE)


_TEMPLATE = _template()


def render(messages, tools=(), thinking=False, prompt=False):
    """The text of a conversation; with `prompt` it ends where the assistant is to speak."""
    return _TEMPLATE.render(messages=messages, tools=list(tools) or None, enable_thinking=thinking, add_generation_prompt=prompt)


def build_tokenizer(vocab, merges):
    """A byte-level BPE tokenizer over `vocab` (token -> id) with the special tokens at the end."""
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(t, special=True, normalized=False) for t in CONTROL])
    tokenizer.add_tokens([AddedToken(t, special=False, normalized=False) for t in USER_DEFINED])
    return tokenizer


def spoken_mask(ids, header, end, last_only=False):
    """1 for every token that the assistant says (its end of turn included), 0 elsewhere.

    `header` is the token run that opens an assistant turn; `last_only` keeps the last turn alone.
    """
    mask, inside, n, begin = [0] * len(ids), False, len(header), 0
    for i, token in enumerate(ids):
        if inside:
            mask[i] = 1
            inside = token != end
        elif i + 1 >= n and ids[i + 1 - n : i + 1] == header:
            inside, begin = True, i + 1
    if last_only:
        mask[:begin] = [0] * begin
    return mask
