"""Invents functions, and what a user says so that a certain call is right.

A tool is {"def": what the client sends, "name", "subject": words that the user may use for it, "params": [(name, kind)]}.

Invariants:
- `arguments` come only from the user's words, so a call can always be copied from the context;
- the definitions have the shape that OpenAI's clients send, with optional keys in varying order.
"""


# Hand-written functions of the evaluation: training invents everything but these.
RESERVED = {"get_weather", "get_forecast", "convert_currency", "find_animal", "get_current_weather"}


def _function_name(r, verb, noun):
    style = r.random()
    if style < 0.78:
        return f"{verb}_{noun}"
    if style < 0.87:
        return verb + noun.capitalize()
    if style < 0.91:
        return f"{noun}_{verb}"
    if style < 0.96:
        return noun
    return f"{verb}-{noun}"


def _params(words, count):
    r, out = words.rng, {}
    while len(out) < count:
        numeric = r.random() < 0.25
        name = words.pick("numbers" if numeric else "strings", 0.06)
        if r.random() < 0.04:
            name += r.choice(["_name", "_id", "_code", "_to", "2"])
        out[name] = r.choice(["integer", "number"]) if numeric else "string"
    return list(out.items())


def _schema(words, noun, params):
    r, properties = words.rng, {}
    for name, kind in params:
        body = {"type": kind}
        if r.random() < 0.4:
            body["description"] = r.choice([f"The {name}", name.capitalize(), f"The {name} to use", f"The {name} of the {noun}.", f"Which {name}, e.g. {words.value()}"])
        properties[name] = body
    schema = {"type": "object", "properties": properties, "required": [name for name, _ in params]}
    if r.random() < 0.12:
        name = words.pick("strings", 0.3)
        if name not in properties:
            properties[name] = {"type": "string", "enum": [words.invented(), words.invented()]}
    if r.random() < 0.2:
        del schema["required"]
    if r.random() < 0.1:
        schema["additionalProperties"] = False
    return schema


def make_tool(words):
    r = words.rng
    verb = words.pick("verbs", 0.06)
    noun = words.pick("nouns", 0.15)
    name = _function_name(r, verb, noun)
    if not words.held and name in RESERVED:
        return make_tool(words)
    params = _params(words, 1 if r.random() < 0.68 else 2)
    function = {"name": name}
    if r.random() < 0.8:
        about = params[0][0]
        function["description"] = r.choice(
            [f"{verb} the {noun}", f"{verb} {noun}", f"{verb} a {noun} by {about}", f"{verb} the {noun} of a {about}.", f"{verb} the {noun} for a {about}.",
             f"{verb} the current {noun} in a given {about}", f"{verb} {noun} with the {about} given.", f"use this to {verb} the {noun}"])
        if r.random() < 0.7:
            function["description"] = function["description"][0].upper() + function["description"][1:]
    function["parameters"] = _schema(words, noun, params)
    if r.random() < 0.1:
        function["strict"] = True
    if r.random() < 0.08:
        function = dict(reversed(function.items()))
    definition = {"type": "function", "function": function}
    return {"def": definition, "name": name, "verb": verb, "noun": noun, "params": params}


def make_tools(words, count):
    """`count` tools that share no verb and no noun, so that the user's words choose one."""
    tools = []
    for _ in range(100):
        t = make_tool(words)
        if all(t["noun"] != o["noun"] and t["verb"] != o["verb"] and t["name"] != o["name"] for o in tools):
            tools.append(t)
        if len(tools) == count:
            break
    return tools


def arguments(words, tool):
    return {name: words.value() if kind == "string" else words.number() for name, kind in tool["params"]}


def _shown(r, value):
    return f'"{value}"' if isinstance(value, str) and r.random() < 0.12 else str(value)


def ask(words, tool, args):
    """What the user says so that `tool` with `args` is the right call."""
    r, verb, noun = words.rng, tool["verb"], tool["noun"]
    shown = [(name, _shown(r, value)) for name, value in args.items()]
    head = r.choice(
        [f"{verb} the {noun}", f"{verb} {noun}", f"please {verb} the {noun}", f"can you {verb} the {noun}", f"i want to {verb} the {noun}", f"what is the {noun}",
         f"what's the {noun}", f"how is the {noun}", f"what is the {noun} like", f"tell me the {noun}", f"i need the {noun}", f"i need a {noun}", f"the {noun}", noun,
         f"call {tool['name']}", f"use {tool['name']}", f"use the {noun} tool", f"could you {verb} a {noun}", f"give me the current {noun}", f"do {verb} my {noun}", f"is there a {noun}", f"{verb} a {noun} for me"])
    if len(shown) == 1:
        (p, x), = shown
        tail = r.choice([f"of {x}", f"for {x}", f"in {x}", f"in {x} today", f"for {x} please", f"with {x}", x, f"with {p} {x}", f"for the {p} {x}", f"at {x}", f"to {x}", f"from {x}", f": {x}", f"where {p} is {x}", f"named {x}", f"about {x}", f"on {x} now"])
        if r.random() < 0.07:
            head, tail = f"in {x}" if r.random() < 0.5 else f"for {x}:", head
    else:
        (p, x), (q, y) = shown
        tail = r.choice([f"with {p} {x} and {q} {y}", f"for {x} and {q} {y}", f"of {x} with {q} {y}", f": {p} {x}, {q} {y}", f"{p}={x}, {q}={y}", f"where {p} is {x} and {q} is {y}",
                         f"with {q} {y} and {p} {x}", f"for {p} {x}, and the {q} is {y}", f"with the {q} {y} for the {p} {x}", f"using {x} as {p} and {y} as {q}", f"using {y} as {q} and {x} as {p}"])
    text = f"{head} {tail}".replace(" :", ":")
    if r.random() < 0.65:
        text = text[0].upper() + text[1:]
    return text + r.choice(["", "", "?", "?", ".", ".", " please", "!", " now."])


def ask_two(words, tool, first, second):
    """One request for two values of a tool with one parameter."""
    r, noun, verb = words.rng, tool["noun"], tool["verb"]
    (a,), (b,) = first.values(), second.values()
    text = r.choice([f"what is the {noun} in {a} and in {b}", f"what is the {noun} in {a} and {b}", f"{verb} the {noun} for {a} and {b}", f"{verb} {noun} of {a} and of {b}", f"{verb} the {noun} for both {a} and {b}", f"i need the {noun} for {a} and for {b}", f"tell me the {noun} in {a} and {b}"])
    if r.random() < 0.65:
        text = text[0].upper() + text[1:]
    return text + r.choice(["", "?", "?", "."])


def call(tool, args, key):
    return {"id": f"call_{key}", "type": "function", "function": {"name": tool["name"], "arguments": args}}


def outcome(words):
    """-> (the text that a tool returns, what is to be said about it)."""
    r, kind = words.rng, words.rng.random()
    if kind < 0.3:
        value = words.value() if r.random() < 0.5 else str(words.number())
        return value, f"The result is {value}."
    if kind < 0.42:
        text = f"{words.number()} {words.invented()}" if r.random() < 0.5 else f"{words.invented()} and {words.value()}"
        return text, f"The result is {text}."
    pairs = {}
    for _ in range(r.choice([1, 1, 2])):
        key = words.pick("strings" if r.random() < 0.5 else "nouns", 0.25)
        pairs[key] = words.number() if r.random() < 0.5 else words.value()
    shown = [f'"{k}": ' + (f'"{v}"' if isinstance(v, str) else str(v)) for k, v in pairs.items()]
    return "{" + ", ".join(shown) + "}", "The " + " and the ".join(f"{k} is {v}" for k, v in pairs.items()) + "."
