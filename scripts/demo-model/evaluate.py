"""Runs the held-out sets through llama-server (greedy) and writes eval.json.

usage: evaluate.py FILE.gguf --server PATH/llama-server [--port 18100] [--json OUT] [--training OUT_DIR/training.json] [--show]

Invariants:
- the figures are those of the GGUF in llama.cpp, not of the PyTorch weights;
- a case is right only when the turn ended by itself (<|im_end|>) within LIMIT tokens;
- a tool call is right only when every call of the turn has the right name and the right arguments, and no other call is there.
"""

import argparse
import json
import re
import subprocess
import time
import urllib.request
from collections import defaultdict

import heldout
import text

LIMIT = 160
CALL = re.compile(r"<tool_call>\n(.*?)\n</tool_call>", re.S)
THOUGHT = re.compile(r"^<think>\n(.+?)\n</think>\n\n", re.S)


def post(base, path, body):
    request = urllib.request.Request(base + path, json.dumps(body).encode(), {"content-type": "application/json"})
    with urllib.request.urlopen(request, timeout=120) as reply:
        return json.load(reply)


class Server:
    """llama-server on loopback, ended when the block ends."""

    def __init__(self, binary, model, port):
        self.command = [binary, "-m", model, "--host", "127.0.0.1", "--port", str(port), "--ctx-size", "2048", "--parallel", "1", "--threads", "2", "--no-webui"]
        self.base = f"http://127.0.0.1:{port}"

    def __enter__(self):
        self.process = subprocess.Popen(self.command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        for _ in range(240):
            try:
                urllib.request.urlopen(self.base + "/health", timeout=2).close()
                return self
            except OSError:
                time.sleep(0.25)
        raise RuntimeError("llama-server did not become ready")

    def __exit__(self, *_):
        self.process.terminate()
        self.process.wait(20)

    def complete(self, prompt):
        """-> (text with its special tokens, whether it ended by itself)."""
        reply = post(self.base, "/completion", {"prompt": prompt, "temperature": 0, "top_k": 1, "n_predict": LIMIT, "cache_prompt": False, "return_tokens": True, "special": True})
        return reply["content"], reply["stop_type"] == "eos", reply["tokens"]


def calls_of(said):
    """The parsed calls of a turn; None when one is not JSON."""
    try:
        return [json.loads(body) for body in CALL.findall(said)]
    except ValueError:
        return None


def judge(case, said, ended):
    if not ended:
        return False
    if case["thinking"]:
        if not THOUGHT.match(said):
            return False
        said = THOUGHT.sub("", said)
    elif "<think>" in said:
        return False
    if "calls" in case:
        return calls_of(said) == case["calls"] and CALL.sub("", said).strip() == ""
    return "<tool_call>" not in said and all(part in said for part in case["mustContain"])


def run(server, cases, tokenizer, show):
    right, total, exact = defaultdict(int), defaultdict(int), 0
    for case in cases:
        prompt = text.render(case["messages"], case["tools"], case["thinking"], prompt=True)
        _, ended, tokens = server.complete(prompt)
        said = tokenizer.decode(tokens, skip_special_tokens=False).removesuffix("<|im_end|>")
        good = judge(case, said, ended)
        case["said"], case["right"] = said, good
        right[case["set"]] += good
        total[case["set"]] += 1
        if show and not good:
            print(case["set"], "|", case["messages"][-1]["content"][:150], "| WANTED", case.get("calls") or case["answer"], "| SAID", said[:200])
    return {kind: {"n": total[kind], "right": right[kind], "share": round(right[kind] / total[kind], 3)} for kind in total}


def report(cases, results, training):
    """The committed form of the sets and the results."""
    plain = [c for c in cases if c["set"] in ("questions", "questionsFresh", "smallTalk", "unknown")]
    called = [c for c in cases if c["set"] in ("toolCallsReal", "toolCalls")]
    rest = [c for c in cases if c not in plain and c not in called]
    return {
        "questions": [{"set": c["set"], "prompt": c["messages"][-1]["content"], "mustContain": c["mustContain"], "answer": c["answer"], "right": c["right"]} for c in plain],
        "toolCalls": [{"set": c["set"], "tools": c["tools"], "messages": c["messages"], "expected": c["calls"][0] if len(c["calls"]) == 1 else c["calls"], "right": c["right"]} for c in called],
        "others": [{k: v for k, v in c.items() if k != "said"} for c in rest],
        "results": {"sets": results, "decoding": "greedy, llama.cpp llama-server /completion", "training": training},
    }


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("model")
    parser.add_argument("--server", required=True)
    parser.add_argument("--port", type=int, default=18100)
    parser.add_argument("--tokenizer", required=True)
    parser.add_argument("--json")
    parser.add_argument("--training")
    parser.add_argument("--show", action="store_true")
    args = parser.parse_args()
    tokenizer = text.Tokenizer.from_file(args.tokenizer)
    cases = heldout.cases()
    with Server(args.server, args.model, args.port) as server:
        results = run(server, cases, tokenizer, args.show)
    print(json.dumps(results, indent=1))
    if args.json:
        training = json.load(open(args.training, encoding="utf-8")) if args.training else None
        with open(args.json, "w", encoding="utf-8") as out:
            json.dump(report(cases, results, training), out, ensure_ascii=False, indent=1)
            out.write("\n")


if __name__ == "__main__":
    main()
