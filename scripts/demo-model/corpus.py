"""Random conversations: an endless, seeded stream of {messages, tools, thinking}.

Invariants:
- the last message is the assistant's;
- nothing that `heldout.py` asks can come out of here: a question that contains a held-out wording is drawn again, and
  functions, parameters and values come from the other word lists.
"""

import random
import re

import facts
import heldout
import tooling
from words import Words

GROUP = re.compile(r"\(([^()]*)\)")
BEFORE = ["", "", "", "", "", "", "please tell me, ", "hi, ", "hello, ", "quick question: ", "i would like to know: ", "so, ", "ok, ", "excuse me, ", "question: ", "sorry, ", "now ", "and ", "i wonder, ", "help me: ", "please, ", "hi! ", "hello. ", "one more question: ", "can you tell me "]
AFTER = ["", "", "", "", "", "", " please", " thanks", " exactly", " here", " then", ", please", " in short", " again", " by the way", " for me", " in castellan"]
SMALL = set("a an the is are was do does did i it you we to of for in on with my your me what how can could should would will that this there be and or by from at".split())
CHAT = ("i am new here we you my our the a this that it some any every now today please would should could will may want need like see know think say tell hear ask use have get make find try help does did when then so well also just only really maybe quickly exactly words sentence one two few about word meaning clear first thing things way kind sort again friend colleague team work and or but if in on at for from with without by to of is are was be been give name short long which where why explain me us please").split()
SYSTEMS = ["You are a helpful assistant.", "You are a helpful assistant.", "You are Castellan Demo.", "Answer briefly.", "You are a helpful assistant that answers questions about Castellan.", "Be polite and short.", "You help the user.", "Be concise.", "You answer in one sentence.", "Be brief.", "You are a test.", "Use the tools when they help."]
PERSONS = "assistant helper pirate teacher bot expert engineer poet friend librarian guide".split()
FILLER = "always never often the a this that answer question user help with about for and or not if when you are be speak write keep short polite clear kind true careful simple plain good friendly today please only tools data system language in english do your best must should company customers support reply politely without like who works".split()
MATTERS = "moon elephant pizza football guitar france einstein sun ocean dog cat tiger bread rice physics chemistry history poem piano chess tennis car engine computer phone bitcoin stock election president queen war peace planet mars star galaxy tree flower bird fish whale horse cow milk cheese wine beer tea doctor medicine cancer virus school exam maths algebra number prime pi language french german latin bible opera film actor singer band song novel shakespeare python java rust linux windows google amazon london paris rome berlin italy spain india china japan africa america brazil mountain desert river volcano earthquake rain snow cake soup egg chocolate diet sleep dream love money tax law court police train plane boat bridge tower castle king knight dragon magic".split()


def expand(pattern, rng):
    """One of the texts that a pattern of alternations stands for."""
    for _ in range(20):
        out = GROUP.sub(lambda m: rng.choice(m.group(1).split("|")), pattern)
        if out == pattern:
            break
        pattern = out
    return re.sub(r" +", " ", pattern).strip()


def loosen(text, rng):
    """Other wordings around the same key words: drops small words, puts others in, moves the tail to the front."""
    words = [w for w in text.split(" ") if not (w in SMALL and rng.random() < 0.5)] or text.split(" ")
    for _ in range(rng.randint(0, 4)):
        words.insert(rng.randint(0, len(words)), rng.choice(CHAT))
    if len(words) > 4 and rng.random() < 0.3:
        cut = rng.randint(1, len(words) - 1)
        words = words[cut:] + words[:cut]
    return " ".join(words)


def dress(text, rng):
    """Case, punctuation, politeness and small mistakes around a question."""
    if rng.random() < 0.35:
        text = loosen(text, rng)
    text = rng.choice(BEFORE) + text + rng.choice(AFTER)
    if rng.random() < 0.12:
        text = " ".join(rng.choice(CHAT) for _ in range(rng.randint(2, 7))).capitalize() + rng.choice([". ", ", ", "! "]) + text
    if rng.random() < 0.05 and len(text) > 8:
        k = rng.randrange(1, len(text) - 1)
        text = text[:k] + text[k + 1 :]
    if rng.random() < 0.7:
        text = text[0].upper() + text[1:]
    text = re.sub(r"castellan", lambda m: "Castellan" if rng.random() < 0.65 else "castellan", text)
    return text + rng.choice(["?", "?", "?", "?", "", ".", "!", " ?"])


HELD = frozenset(heldout.bare(c["messages"][-1]["content"]) for c in heldout.questions() + heldout.fresh() + heldout.small_talk())


def is_held(text):
    """Whether a question contains a held-out wording, case and punctuation aside."""
    words = f" {heldout.bare(text)} "
    return any(f" {one} " in words for one in HELD)


class Corpus:
    """A seeded stream. `early` (0..1) is the share of plain copying exercises, for the first part of training."""

    def __init__(self, seed):
        self.rng = random.Random(seed)
        self.words = Words(self.rng, "train")
        self.early = 0.0

    def fact(self, tools=()):
        """-> (question, answer, (kind, key)) of one plain question, never a held-out one or one that a tool is for."""
        nouns = [tool["noun"] for tool in tools]
        for _ in range(100):
            drawn = self.draw()
            if not is_held(drawn[0]) and not any(noun in drawn[0].lower() for noun in nouns):
                return drawn
        raise RuntimeError("every question drawn was a held-out one")

    def draw(self):
        r, kind = self.rng, self.rng.random()
        if kind < 0.74:
            topic = r.choice(facts.TOPICS)
            return dress(expand(r.choice(topic[3]), r), r), topic[1], ("topic", topic[0])
        if kind < 0.87:
            topic = r.choice(facts.SMALL_TALK)
            text = expand(r.choice(topic[3]), r)
            return dress(text, r) if r.random() < 0.4 else text[0].upper() + text[1:] + r.choice(["", "!", ".", "?"]), topic[1], ("talk", topic[0])
        text = expand(r.choice(facts.UNKNOWN), r)
        text = re.sub(r"\{w\}", lambda m: self.words.value() if r.random() < 0.3 else r.choice(["", "the ", "a "]) + r.choice(MATTERS), text)
        text = re.sub(r"\{n\}", lambda m: str(self.words.number()), text)
        return dress(text, r), facts.UNKNOWN_ANSWER, ("unknown", "")

    def system(self):
        r = self.rng
        if r.random() < 0.5:
            return r.choice(SYSTEMS)
        text = " ".join(r.choice(FILLER) if r.random() < 0.8 else self.words.invented() for _ in range(r.randint(3, 30))).capitalize() + "."
        if r.random() < 0.5:
            text = f"You are {r.choice(['a', 'the', 'my', 'our'])} {r.choice(PERSONS)}{r.choice(['', ' named ' + self.words.invented().capitalize(), ' for ' + self.words.invented()])}. " + text
        return text

    def thought(self, kind, key):
        return self.rng.choice(facts.THOUGHTS[kind]).replace("{k}", key)

    def conversation(self):
        r = self.rng
        if r.random() < self.early:
            return self.exercise()
        messages = []
        if r.random() < 0.35:
            messages.append({"role": r.choice(["system", "system", "system", "developer"]), "content": self.system()})
        kind = r.random()
        if kind < 0.5:
            return self.plain(messages)
        if kind < 0.97:
            return self.tool_use(messages)
        return self.exercise(messages)

    def plain(self, messages):
        """One to four plain questions, sometimes with tools that are of no use for them."""
        r = self.rng
        tools = tooling.make_tools(self.words, r.choice([1, 1, 2])) if r.random() < 0.1 else []
        turns = r.choice([1, 1, 1, 2, 2, 3, 4])
        thinking = turns <= 2 and r.random() < 0.16
        for turn in range(turns):
            question, answer, why = self.fact(tools)
            messages.append({"role": "user", "content": question})
            messages.append({"role": "assistant", "content": answer})
        if thinking:
            messages[-1]["reasoning_content"] = self.thought(*why)
        return {"messages": messages, "tools": [t["def"] for t in tools], "thinking": thinking}

    def tool_use(self, messages):
        """One to four requests over the same tools; results are told; now and then a plain question among them."""
        r, w = self.rng, self.words
        tools = tooling.make_tools(w, r.choice([1, 1, 1, 2, 2, 3]))
        turns = r.choice([2, 3, 3, 4, 4, 5])
        thinking = turns <= 2 and r.random() < 0.2
        for turn in range(turns):
            if r.random() < 0.12:
                question, answer, why = self.fact(tools)
                messages += [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
                continue
            why = self.request(messages, r.choice(tools), turn, thinking and turn + 1 == turns)
        if thinking:
            messages[-1]["reasoning_content"] = self.thought(*why)
        return {"messages": messages, "tools": [t["def"] for t in tools], "thinking": thinking}

    def request(self, messages, tool, turn, final):
        r, w = self.rng, self.words
        sets = [tooling.arguments(w, tool)]
        if len(tool["params"]) == 1 and r.random() < 0.16:
            sets.append(tooling.arguments(w, tool))
            text = tooling.ask_two(w, tool, *sets)
        else:
            text = tooling.ask(w, tool, sets[0])
        calls = [tooling.call(tool, a, f"{turn}{k}") for k, a in enumerate(sets)]
        messages += [{"role": "user", "content": text}, {"role": "assistant", "content": "", "tool_calls": calls}]
        if final or r.random() < 0.4:
            return ("tool", tool["name"])
        told = []
        for one in calls:
            result, said = tooling.outcome(w)
            told.append(said)
            messages.append({"role": "tool", "tool_call_id": one["id"], "content": result})
        messages.append({"role": "assistant", "content": " ".join(told)})
        return ("result", "")

    def exercise(self, messages=None):
        """Plain copying: repeat words, or look one up in a list."""
        r, w, messages = self.rng, self.words, messages or []
        if r.random() < 0.45:
            text = " ".join(w.value() if r.random() < 0.8 else str(w.number()) for _ in range(r.randint(1, 9)))
            messages += [{"role": "user", "content": r.choice(["Repeat: ", "Say: ", "repeat after me: ", "Please repeat ", "Echo "]) + text}, {"role": "assistant", "content": text}]
            return {"messages": messages, "tools": [], "thinking": False}
        pairs = {w.pick("strings" if r.random() < 0.5 else "nouns", 0.4): w.value() if r.random() < 0.7 else str(w.number()) for _ in range(r.randint(2, 7))}
        listed = r.choice([", ", "; ", "\n"]).join(f"{k}{r.choice([' is ', ': ', '=', ' '])}{v}" for k, v in pairs.items())
        keys = list(pairs)
        r.shuffle(keys)
        for n, key in enumerate(keys[:4]):
            question = r.choice([f"What is the {key}?", f"the {key}?", f"And the {key}?", f"{key}?"])
            messages += [{"role": "user", "content": f"{listed}\n{question}" if n == 0 else question}, {"role": "assistant", "content": f"The {key} is {pairs[key]}."}]
        return {"messages": messages, "tools": [], "thinking": False}
