"""Checks that llama.cpp cuts text into the same tokens as the tokenizer used in training.

usage: check_tokens.py FILE.gguf --server PATH/llama-server --tokenizer FILE [--port 18101]   (exit 1 on a difference)
"""

import argparse
import random
import sys

import text
from corpus import Corpus
from evaluate import Server, post

PIECES = ["é", "ü", "ß", "日本", "語", "Привет", "🙂", "👩‍🚀", "\u200b", "\u00a0", "½", "x²", "  ", "   ", "\n", "\n\n", "\t", " ", "'s", "'ll", "don't", "1", "42", "3.14", "2026-01-02", "{\"a\": 1}", "<tool_call>", "</tool_call>",
          "<think>", "</think>", "<|im_start|>", "<|im_end|>", "<|endoftext|>", "_", "get_weather", "--api-key", "http://127.0.0.1:8000", "\\n", "\"", "…", "—", "Castellan", " the", "a", "Z", "\u0301", "\x00\x01".replace("\x00", "")]


def strings(count=500):
    rng, corpus = random.Random(5), Corpus(77)
    yield from PIECES
    for n in range(count):
        yield text.render(**corpus.conversation()) if n % 3 == 0 else "".join(rng.choice(PIECES) for _ in range(rng.randint(1, 12)))


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("model")
    parser.add_argument("--server", required=True)
    parser.add_argument("--tokenizer", required=True)
    parser.add_argument("--port", type=int, default=18101)
    args = parser.parse_args()
    tokenizer = text.Tokenizer.from_file(args.tokenizer)
    seen = differ = 0
    with Server(args.server, args.model, args.port) as server:
        for one in strings():
            theirs = post(server.base, "/tokenize", {"content": one, "add_special": True, "parse_special": True})["tokens"]
            ours = tokenizer.encode(one).ids
            back = post(server.base, "/detokenize", {"tokens": ours})["content"]
            seen += 1
            if theirs != ours or back != one:
                differ += 1
                print("DIFFER", repr(one)[:200], theirs[:40], ours[:40], "" if back == one else repr(back)[:200])
    print(f"{seen} strings, {differ} differ")
    sys.exit(1 if differ or not seen else 0)


if __name__ == "__main__":
    main()
