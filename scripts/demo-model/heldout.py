"""The held-out sets: what the evaluation asks. Nothing in here is seen in training.

A case is {"set", "messages", "tools", "thinking", and what must come out: "mustContain" (texts), "answer" (the exact
text), or "calls" ([{name, arguments}])}.

Invariants:
- questions are the held-out wordings of facts.py and MORE below, word for word (no random dressing);
- functions, parameters and values of the tool cases come from the held-out word lists, or are REAL below.
"""

import random
import re

import facts
import tooling
from words import Words

SEED = 20011

# More held-out wordings, by topic.
MORE = {
    "what": ["So what exactly is Castellan?", "Describe Castellan to somebody who never heard of it."],
    "closed": ["What is meant by closed by default?", "Closed by default: explain that to me."],
    "port": ["Which port is the default one?", "What's the server's default port number?"],
    "ops": ["On which port is the operations listener?"],
    "open": ["Are there routes that answer without a key?"],
    "key": ["How would one give the server an API key?", "Where does my API key come from?"],
    "serve": ["How would I serve my own model with Castellan?", "What command do I use to serve a model?"],
    "format": ["Which model file format does Castellan support?"],
    "engine": ["Which inference engine is in Castellan?"],
    "crash": ["What happens to the server when its engine crashes?"],
    "clients": ["Which client library works with Castellan?"],
    "language": ["In which programming language is Castellan written?"],
    "licence": ["What license is Castellan under?"],
    "chat": ["How do I get a chat in the terminal?"],
    "bench": ["How can one benchmark Castellan?"],
    "stop": ["How do I shut the server down gracefully?"],
    "metrics": ["Where are the Prometheus metrics?"],
    "models": ["What call gives me the served models?"],
    "scope": ["Could you tell me what a scope is?"],
    "principal": ["Could you tell me what a principal is?"],
    "tenant": ["Could you tell me what a tenant is?"],
    "prefill": ["Could you tell me what prefill is?"],
    "batching": ["Could you tell me what continuous batching is?"],
    "demo": ["Which model are you, please?", "Who exactly are you?"],
}

# Wordings that were written after the training text was finished, so that nothing in it can lean towards them.
FRESH = {
    "what": ["Give me an overview of Castellan.", "What am I looking at? What does Castellan do?"],
    "closed": ["Your README says closed by default. What is that supposed to mean?"],
    "port": ["I forgot the default port, which one was it?", "Where do I point my client: what address and port?"],
    "ops": ["What is the second listener, the one for operations?"],
    "open": ["Name the routes that can be called without a key."],
    "key": ["How am I supposed to get an API key?", "Which environment variables can hold the API key?"],
    "lostkey": ["I closed the window and lost my key, what can I do?"],
    "serve": ["I've got a GGUF model here. How can I serve it?", "Show the command that serves a model."],
    "start": ["How do I install and start Castellan?"],
    "test": ["How are the tests started?"],
    "format": ["Does Castellan accept safetensors, or which model formats?"],
    "hub": ["Can I use a Hugging Face model directly?"],
    "engine": ["Whose engine does the inference here?", "Is llama.cpp used by the engine?"],
    "crash": ["Does an engine crash take the whole server down?"],
    "clients": ["Would the official OpenAI Python client work?"],
    "vllm": ["Are vLLM's command line flags compatible with yours?"],
    "language": ["Is Castellan a TypeScript or a Python program?"],
    "licence": ["What are the licence terms of Castellan?"],
    "chat": ["How can I chat from the command line?"],
    "bench": ["I need to benchmark my server. How?"],
    "stop": ["How should I stop the server?", "What happens after SIGTERM?"],
    "metrics": ["Does Castellan expose Prometheus metrics anywhere?"],
    "health": ["What does the health route tell me?"],
    "models": ["Where do I see the list of models?"],
    "routes": ["What API routes are implemented?"],
    "stream": ["Does the API support streaming answers?"],
    "state": ["Where on my disk is the state directory?"],
    "ctx": ["How can I make the context window longer?"],
    "seqs": ["How many sequences can run concurrently?"],
    "seed": ["Does sending a seed make the answers reproducible?"],
    "greedy": ["What happens with temperature at 0?"],
    "tools": ["How are tools given to the model?"],
    "think": ["How can thinking be switched on?"],
    "logprobs": ["Are logprobs available, and how many?"],
    "limits": ["What's the answer to an invalid request?"],
    "unauth": ["What does a caller get with a wrong key?"],
    "overload": ["What does the server do when the queue is full?"],
    "inject": ["Could a user smuggle control tokens into a prompt?"],
    "scope": ["What's a scope good for?"],
    "principal": ["Who is meant by the principal?"],
    "tenant": ["What do you call a tenant?"],
    "sequence": ["What does the engine call a sequence?"],
    "step": ["What goes on in one step of the engine?"],
    "prefill": ["What work does prefill do?"],
    "batching": ["What's the idea behind continuous batching?"],
    "ttft": ["What do the four letters TTFT mean?"],
    "gguf": ["What sort of file is a GGUF?"],
    "demo": ["What are you, actually?", "What is the demo model that I am talking to?"],
    "name": ["And your name is?"],
    "security": ["How do I report a vulnerability that I found?"],
    "prefixcache": ["What is kept in the prefix cache?"],
    "gateway": ["Can Castellan be a gateway for a vLLM cluster?"],
}

MORE_TALK = {"hello": ["Hi, good to see you"], "howareyou": ["Hey, how are you doing these days?"], "thanks": ["Thanks for your help!"], "bye": ["Goodbye for now"], "joke": ["Please tell me one joke"], "can": ["What can you do here?"]}


def _tool(name, description, properties, required=None):
    schema = {"type": "object", "properties": properties, "required": required or list(properties)}
    return {"type": "function", "function": {"name": name, "description": description, "parameters": schema}}


WEATHER = _tool("get_weather", "Get the current weather in a given city.", {"city": {"type": "string", "description": "The city, e.g. Lisbon"}})
FORECAST = _tool("get_forecast", "Get the weather forecast for a location", {"location": {"type": "string"}, "days": {"type": "integer"}})
CURRENCY = _tool("convert_currency", "Convert the currency", {"amount": {"type": "number"}, "currency": {"type": "string"}})
ANIMAL = _tool("find_animal", "Find an animal in the shelter", {"animal": {"type": "string", "description": "The animal"}})
TIDE = _tool("tide_table", "The tide at a harbour.", {"harbour": {"type": "string"}})
CHEMIST = _tool("lookup_molecule", "Look up a molecule by name.", {"molecule_name": {"type": "string"}})
LEGACY = _tool("get_current_weather", "Get the current weather in a given location", {"location": {"type": "string", "description": "The city and state, e.g. San Francisco, CA"}, "unit": {"type": "string", "enum": ["celsius", "fahrenheit"]}}, ["location"])

# Written by hand: the shape of real requests. (tools, what the user says, calls)
REAL = [
    ([WEATHER], "What is the weather in Lisbon?", [("get_weather", {"city": "Lisbon"})]),
    ([WEATHER], "What's the weather like in Porto today?", [("get_weather", {"city": "Porto"})]),
    ([WEATHER], "How is the weather in Zurich?", [("get_weather", {"city": "Zurich"})]),
    ([WEATHER], "Please tell me the weather for Helsinki.", [("get_weather", {"city": "Helsinki"})]),
    ([WEATHER], "weather in Nairobi", [("get_weather", {"city": "Nairobi"})]),
    ([WEATHER, TIDE], "What is the weather in Bergen right now?", [("get_weather", {"city": "Bergen"})]),
    ([TIDE, WEATHER], "When is the tide in Naples?", [("tide_table", {"harbour": "Naples"})]),
    ([TIDE, WEATHER, ANIMAL], "Can you find the animal called Felix?", [("find_animal", {"animal": "Felix"})]),
    ([ANIMAL, WEATHER, CURRENCY], "I need the weather in Kyoto.", [("get_weather", {"city": "Kyoto"})]),
    ([CURRENCY], "Convert the currency with amount 250 and currency dollar.", [("convert_currency", {"amount": 250, "currency": "dollar"})]),
    ([CURRENCY, WEATHER], "Convert amount 17, currency euro", [("convert_currency", {"amount": 17, "currency": "euro"})]),
    ([FORECAST], "Give me the forecast for Quito, days 3.", [("get_forecast", {"location": "Quito", "days": 3})]),
    ([CHEMIST, TIDE], "Look up the molecule caffeine.", [("lookup_molecule", {"molecule_name": "caffeine"})]),
    ([LEGACY], "What is the weather in Warsaw?", [("get_current_weather", {"location": "Warsaw"})]),
    ([LEGACY, CHEMIST], "Get the current weather in Toronto, please", [("get_current_weather", {"location": "Toronto"})]),
    ([WEATHER], "What is the weather in Lima and in Prague?", [("get_weather", {"city": "Lima"}), ("get_weather", {"city": "Prague"})]),
]


def bare(text):
    """A wording without case and punctuation: what counts as the same question."""
    return re.sub(r" +", " ", re.sub(r"[^a-z0-9/ ]", " ", text.lower().replace("'", ""))).strip()


def _case(kind, messages, tools=(), thinking=False, **wanted):
    return {"set": kind, "messages": messages, "tools": list(tools), "thinking": thinking, **wanted}


def _user(content):
    return {"role": "user", "content": content}


def _answers(table, more):
    """(question, answer, mustContain) of every held-out wording."""
    for row in table:
        key, answer, must, held = row[0], row[1], row[2], row[4]
        for question in list(held) + more.get(key, []):
            yield question, answer, must


def fresh():
    rows = {row[0]: row for row in facts.TOPICS}
    return [_case("questionsFresh", [_user(q)], mustContain=rows[key][2], answer=rows[key][1]) for key, asked in FRESH.items() for q in asked]


def questions():
    return [_case("questions", [_user(q)], mustContain=must, answer=a) for q, a, must in _answers(facts.TOPICS, MORE)]


def small_talk():
    return [_case("smallTalk", [_user(q)], mustContain=must, answer=a) for q, a, must in _answers(facts.SMALL_TALK, MORE_TALK)]


def unknown(words):
    out = []
    for pattern in facts.UNKNOWN_HELD * 4:
        question = re.sub(r"\{w\}", lambda m: words.value(), pattern)
        question = re.sub(r"\{n\}", lambda m: str(words.number()), question)
        out.append(_case("unknown", [_user(question)], mustContain=["I do not know"], answer=facts.UNKNOWN_ANSWER))
    return out


def _wanted(tool, sets):
    return [{"name": tool["name"], "arguments": a} for a in sets]


def tool_calls(words, count=120):
    out = [_case("toolCallsReal", [_user(t)], tools, calls=[{"name": n, "arguments": a} for n, a in calls]) for tools, t, calls in REAL]
    for n in range(count):
        tools = tooling.make_tools(words, n % 3 + 1)
        tool = words.rng.choice(tools)
        args = tooling.arguments(words, tool)
        out.append(_case("toolCalls", [_user(tooling.ask(words, tool, args))], [t["def"] for t in tools], calls=_wanted(tool, [args])))
    return out


def two_calls(words, count=24):
    out = []
    for n in range(count):
        tools = [t for t in tooling.make_tools(words, 60) if len(t["params"]) == 1][: n % 2 + 1]
        sets = [tooling.arguments(words, tools[0]) for _ in range(2)]
        text = tooling.ask_two(words, tools[0], *sets)
        out.append(_case("twoCalls", [_user(text)], [t["def"] for t in tools], calls=_wanted(tools[0], sets)))
    return out


def tool_results(words, count=40):
    """After a tool has answered: a sentence that uses the result."""
    out = []
    for _ in range(count):
        tools = tooling.make_tools(words, 1)
        args = tooling.arguments(words, tools[0])
        result, said = tooling.outcome(words)
        messages = [_user(tooling.ask(words, tools[0], args)), {"role": "assistant", "content": None, "tool_calls": [tooling.call(tools[0], args, "0")]},
                    {"role": "tool", "tool_call_id": "call_0", "content": result}]
        out.append(_case("toolResults", messages, [tools[0]["def"]], mustContain=[said], answer=said))
    return out


def plain_with_tools(words, rng, count=40):
    pool = list(_answers(facts.TOPICS, MORE))
    out = []
    for n in range(count):
        question, answer, must = rng.choice(pool)
        out.append(_case("plainWithTools", [_user(question)], [t["def"] for t in tooling.make_tools(words, n % 3 + 1)], mustContain=must, answer=answer))
    return out


def many_turns(words, rng, count=40):
    """The last of three turns, after two other questions; every other case has a system prompt of its own."""
    pool = list(_answers(facts.TOPICS, MORE))
    out = []
    for n in range(count):
        messages = []
        if n % 2:
            messages.append({"role": "system", "content": f"You work for {words.invented().capitalize()} and help people. Speak of {words.invented()} kindly, and never of {words.invented()}."})
        for question, answer, _ in rng.sample(pool, 2):
            messages += [_user(question), {"role": "assistant", "content": answer}]
        question, answer, must = rng.choice(pool)
        out.append(_case("manyTurns", [*messages, _user(question)], mustContain=must, answer=answer))
    return out


def tool_turns(words, count=40):
    """The second call of a conversation, over the same tools."""
    out = []
    for n in range(count):
        tools = tooling.make_tools(words, n % 2 + 2)
        first, second = words.rng.sample(tools, 2)
        a, b = tooling.arguments(words, first), tooling.arguments(words, second)
        result, said = tooling.outcome(words)
        messages = [_user(tooling.ask(words, first, a)), {"role": "assistant", "content": None, "tool_calls": [tooling.call(first, a, "0")]},
                    {"role": "tool", "tool_call_id": "call_0", "content": result}, {"role": "assistant", "content": said}, _user(tooling.ask(words, second, b))]
        out.append(_case("toolTurns", messages, [t["def"] for t in tools], calls=_wanted(second, [b])))
    return out


def thinking(words, rng, count=30):
    pool = list(_answers(facts.TOPICS, MORE))
    out = []
    for _ in range(count):
        question, answer, must = rng.choice(pool)
        out.append(_case("thinking", [_user(question)], thinking=True, mustContain=must, answer=answer))
    for _ in range(count // 2):
        tools = tooling.make_tools(words, 2)
        args = tooling.arguments(words, tools[0])
        out.append(_case("thinking", [_user(tooling.ask(words, tools[0], args))], [t["def"] for t in tools], True, calls=_wanted(tools[0], [args])))
    return out


def cases():
    """All held-out cases, the same ones on every run."""
    rng = random.Random(SEED)
    words = Words(rng, "held")
    return [*questions(), *fresh(), *small_talk(), *unknown(words), *tool_calls(words), *two_calls(words), *tool_results(words),
            *plain_with_tools(words, rng), *many_turns(words, rng), *tool_turns(words), *thinking(words, rng)]
