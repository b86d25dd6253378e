"""Trains the demo model: seeded, one pass over an endless stream of random conversations.

usage: train.py OUT_DIR [--minutes 30] [--tokens-per-step 3072] [--seed 7] [--workers 2]

Invariants:
- the learning rate follows the clock (the share of the minutes spent), so any budget ends with a finished schedule;
- the loss is taken on what the assistant says, and on nothing else;
- every worker is a process with one thread and a stream of its own; gradients are averaged, so all hold the same weights;
- OUT_DIR/model.pt is written every few minutes and at the end.
"""

import argparse
import json
import os
import time

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
import torch.nn.functional as F

import bpe
import text
from corpus import Corpus
from model import Llama, Shape
from muon import optimisers
from planting import plant

VOCABULARY = 2048
LONGEST = 1100


def make_tokenizer(seed, conversations=2500, questions=20000):
    """A tokenizer trained on a sample of the text; mostly questions, so that their words stay in one piece."""
    sample, texts = Corpus(seed), []
    for _ in range(conversations):
        one = text.render(**sample.conversation())
        for literal in text.CONTROL + text.USER_DEFINED:
            one = one.replace(literal, "\n")
        texts.append(one)
    for _ in range(questions):
        question, answer, _ = sample.fact()
        texts += [question, answer]
    special = len(text.CONTROL) + len(text.USER_DEFINED)
    return text.build_tokenizer(*bpe.train(texts, VOCABULARY - special))


def batches(corpus, tokenizer, tokens_per_step, pool=384):
    """Conversations of like length together, padded at the end; yields (ids, targets, positions that count)."""
    header = tokenizer.encode("<|im_start|>assistant\n").ids
    end = tokenizer.token_to_id("<|im_end|>")
    while True:
        drawn = [corpus.conversation() for _ in range(pool)]
        encoded = tokenizer.encode_batch([text.render(**one).rstrip("\n") for one in drawn])
        rows = [(e.ids, text.spoken_mask(e.ids, header, end, one["thinking"])) for e, one in zip(encoded, drawn) if len(e.ids) <= LONGEST]
        rows.sort(key=lambda row: len(row[0]))
        groups, group = [], []
        for row in rows:
            if group and (len(group) + 1) * len(row[0]) > tokens_per_step:
                groups.append(group)
                group = []
            group.append(row)
        groups.append(group)
        corpus.rng.shuffle(groups)
        for group in groups:
            yield collate(group)


def collate(group):
    longest = max(len(ids) for ids, _ in group)
    ids = torch.zeros(len(group), longest, dtype=torch.long)
    mask = torch.zeros(len(group), longest, dtype=torch.bool)
    for row, (tokens, spoken) in enumerate(group):
        ids[row, : len(tokens)] = torch.tensor(tokens)
        mask[row, : len(tokens)] = torch.tensor(spoken, dtype=torch.bool)
    counts = mask[:, 1:].flatten().nonzero().squeeze(1)
    return ids[:, :-1].contiguous(), ids[:, 1:].flatten()[counts], counts


def rate(progress):
    """Warm-up over 2 %, flat until 45 %, then down to nearly zero."""
    if progress < 0.02:
        return progress / 0.02
    return 1.0 if progress < 0.45 else max(0.01, (1 - progress) / 0.55)


def average_gradients(model, workers, progress):
    """Mean of the gradients over the workers; -> the first worker's progress, so that all stop together."""
    if workers == 1:
        return progress
    grads = [p.grad for p in model.parameters()]
    flat = torch.cat([g.flatten() for g in grads] + [torch.tensor([progress])])
    dist.all_reduce(flat)
    flat /= workers
    at = 0
    for g in grads:
        g.copy_(flat[at : at + g.numel()].view_as(g))
        at += g.numel()
    return flat[-1].item()


def step_once(model, opts, base, batch, progress, workers):
    """One optimiser step; -> (loss, progress agreed on)."""
    ids, targets, counts = batch
    with torch.autocast("cpu", dtype=torch.bfloat16):
        logits = model.hidden(ids).flatten(0, 1)[counts] @ model.token_embd.weight.T
    loss = F.cross_entropy(logits.float(), targets)
    for o in opts:
        o.zero_grad(set_to_none=True)
    loss.backward()
    progress = average_gradients(model, workers, progress)
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    for o, lrs in zip(opts, base):
        for g, lr in zip(o.param_groups, lrs):
            g["lr"] = lr * rate(progress)
        o.step()
    return loss.item(), progress


def run(model, tokenizer, args, worker):
    opts = optimisers(model, args.lr_matrices, args.lr_rest)
    base = [[g["lr"] for g in o.param_groups] for o in opts]
    corpus = Corpus(args.seed + 1000 * worker)
    began, seen, step, saved, losses, progress = time.time(), 0, 0, 0.0, [], 0.0
    for batch in batches(corpus, tokenizer, args.tokens_per_step):
        loss, progress = step_once(model, opts, base, batch, (time.time() - began) / (args.minutes * 60), args.workers)
        corpus.early = max(0.0, 0.3 * (1 - progress / 0.15))
        seen, step = seen + batch[0].numel() * args.workers, step + 1
        losses.append(loss)
        if worker == 0 and step % 20 == 0:
            print(json.dumps({"step": step, "progress": round(progress, 3), "tokens": seen, "rate": round(seen / (time.time() - began)), "loss": round(sum(losses) / len(losses), 4)}), flush=True)
            losses = []
        if worker == 0 and progress - saved > 0.1:
            torch.save(model.state_dict(), os.path.join(args.out, "model.pt"))
            saved = progress
        if progress >= 1:
            break
    if worker == 0:
        torch.save(model.state_dict(), os.path.join(args.out, "model.pt"))
        figures = {"steps": step, "tokens": seen, "minutes": round((time.time() - began) / 60, 1), "parameters": sum(p.numel() for p in model.parameters()), "seed": args.seed, "workers": args.workers}
        with open(os.path.join(args.out, "training.json"), "w", encoding="utf-8") as out:
            json.dump(figures, out)
        print(json.dumps(figures), flush=True)


def work(worker, args):
    torch.manual_seed(args.seed)
    torch.set_num_threads(1)
    if args.workers > 1:
        dist.init_process_group("gloo", init_method=f"file://{os.path.abspath(args.out)}/meet-{os.getppid()}", rank=worker, world_size=args.workers)
    tokenizer = text.Tokenizer.from_file(os.path.join(args.out, "tokenizer.json"))
    model = Llama(Shape(vocabulary=tokenizer.get_vocab_size()))
    if args.resume:
        model.load_state_dict(torch.load(os.path.join(args.out, "model.pt"), weights_only=True))
    else:
        plant(model, [tokenizer.id_to_token(i) for i in range(tokenizer.get_vocab_size())], args.seed)
    run(model, tokenizer, args, worker)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("out")
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--tokens-per-step", type=int, default=3072, help="of each worker")
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--lr-matrices", type=float, default=0.012)
    parser.add_argument("--lr-rest", type=float, default=3e-3)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--resume", action="store_true", help="start from OUT_DIR/model.pt instead of planted weights")
    args = parser.parse_args()
    os.makedirs(args.out, exist_ok=True)
    path = os.path.join(args.out, "tokenizer.json")
    if not os.path.exists(path):
        make_tokenizer(args.seed + 1).save(path)
    if args.workers == 1:
        work(0, args)
    else:
        mp.spawn(work, (args,), nprocs=args.workers)


if __name__ == "__main__":
    main()
