"""Checks that no held-out wording comes out of the training stream.

usage: check_heldout.py [--draws 100000]   (exit 1 and the list, when one does)
"""

import argparse
import sys

import heldout
from corpus import HELD, Corpus


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--draws", type=int, default=100000)
    args = parser.parse_args()
    corpus, clashes = Corpus(424242), set()
    for _ in range(args.draws):
        question = heldout.bare(corpus.fact()[0])
        if question in HELD:
            clashes.add(question)
    print(f"{args.draws} training questions, {len(HELD)} held-out wordings, {len(clashes)} in both", *sorted(clashes), sep="\n")
    sys.exit(1 if clashes or not HELD else 0)


if __name__ == "__main__":
    main()
