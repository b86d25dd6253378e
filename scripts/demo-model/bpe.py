"""Trains the byte-level BPE vocabulary.

The merges are ordinary BPE merges, with one twist that makes copying easy for a small network: a word is cut in the
same pieces whether a space stands before it or not ("in Lisbon" and "\"Lisbon\""). So merges are learnt on words
without their leading space; only at the very end, as the last merges, a space joins whole common words.

Invariants:
- digits never merge: a number is its digits;
- the 256 byte tokens come first, so that any UTF-8 text round-trips;
- words are split by the same expression as llama.cpp's "gpt-2" pre-tokeniser.
"""

from collections import Counter, defaultdict

from tokenizers import pre_tokenizers

SPACE = "\u0120"  # how byte-level BPE spells a space
_SPLIT = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)


def count_words(texts):
    """-> (bare: pieces without their leading space, spaced: words seen with one)."""
    bare, spaced = Counter(), Counter()
    for text in texts:
        for piece, _ in _SPLIT.pre_tokenize_str(text):
            if piece.startswith(SPACE) and len(piece) > 1 and piece[1].isalpha():
                bare[piece[1:]] += 1
                spaced[piece[1:]] += 1
            elif not any(c.isdigit() for c in piece):
                bare[piece] += 1
    return bare, spaced


def _learn(bare, count):
    """`count` merges over `bare`, most frequent pair first, ties by spelling."""
    words = [(list(w), n) for w, n in sorted(bare.items()) if len(w) > 1]
    pairs, where = Counter(), defaultdict(set)
    for i, (parts, n) in enumerate(words):
        for pair in zip(parts, parts[1:]):
            pairs[pair] += n
            where[pair].add(i)
    merges = []
    for _ in range(count):
        if not pairs:
            break
        best = max(pairs, key=lambda p: (pairs[p], p))
        if pairs[best] < 2:
            break
        merges.append(best)
        for i in list(where[best]):
            _rewrite(words, i, best, pairs, where)
        pairs.pop(best, None)
    return merges


def _rewrite(words, i, best, pairs, where):
    """Apply the merge `best` to word i and keep the pair counts right."""
    parts, n = words[i]
    for pair in zip(parts, parts[1:]):
        pairs[pair] -= n
        if pairs[pair] <= 0:
            del pairs[pair]
        where[pair].discard(i)
    out, k = [], 0
    while k < len(parts):
        if k + 1 < len(parts) and (parts[k], parts[k + 1]) == best:
            out.append(parts[k] + parts[k + 1])
            k += 2
        else:
            out.append(parts[k])
            k += 1
    words[i] = (out, n)
    for pair in zip(out, out[1:]):
        pairs[pair] += n
        where[pair].add(i)


def train(texts, size, joined=320):
    """-> (vocab: token -> id, merges) with `size` entries, at most `joined` of them words with their space."""
    bare, spaced = count_words(texts)
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    merges = _learn(bare, size - len(letters) - joined)
    tokens = letters + [a + b for a, b in merges]
    known = set(tokens)
    for word, _ in sorted(spaced.items(), key=lambda item: (-item[1], item[0])):
        if len(tokens) == size:
            break
        if len(word) > 1 and word in known and SPACE + word not in known:
            merges.append((SPACE, word))
            tokens.append(SPACE + word)
            known.add(SPACE + word)
    vocab = {}
    for token in tokens:
        vocab.setdefault(token, len(vocab))
    return vocab, merges
