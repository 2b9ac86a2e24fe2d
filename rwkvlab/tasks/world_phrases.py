"""The phrases of StyleWorld: how its questions are asked and answered in each style and language."""

from __future__ import annotations

# by language and kind, in three phrasings; {a} and {b} are the cities' names
QUESTIONS: dict[tuple[str, str], tuple[str, str, str]] = {
    ("en", "route"): (
        "How do I get from {a} to {b}?",
        "What is the way from {a} to {b}?",
        "I am in {a}. How do I reach {b}?",
    ),
    ("en", "country"): (
        "Which countries are {a} and {b} in?",
        "In what countries do {a} and {b} lie?",
        "What countries do {a} and {b} belong to?",
    ),
    ("en", "currency"): (
        "What money is used in {a} and {b}?",
        "What do people pay with in {a} and {b}?",
        "Which currencies do {a} and {b} have?",
    ),
    ("en", "language"): (
        "What do people speak in {a} and {b}?",
        "Which languages are spoken in {a} and {b}?",
        "What languages will I hear in {a} and {b}?",
    ),
    ("zh", "route"): ("{a}到{b}怎么走?", "从{a}去{b}怎么走?", "我在{a},怎么去{b}?"),
    ("zh", "country"): ("{a}和{b}在哪些国家?", "{a}和{b}各属于哪个国家?", "{a}和{b}是哪国的城市?"),
    ("zh", "currency"): ("{a}和{b}用什么钱?", "在{a}和{b}用什么货币?", "去{a}和{b}要带什么钱?"),
    ("zh", "language"): ("{a}和{b}说什么语言?", "在{a}和{b}说什么话?", "{a}和{b}的人讲什么语言?"),
}

# {x} and {y} are the facts of a and b, {f} and {g} the flags
ANSWERS: dict[tuple[str, str], dict[str, str]] = {
    ("plain", "en"): {
        "route": "Fly from {a} ({x}) to {b} ({y}).",
        "country": "{a} is in {the_x} and {b} is in {the_y}.",
        "currency": "{a} uses the {x} and {b} uses the {y}.",
        "language": "People speak {x} in {a} and {y} in {b}.",
    },
    ("emoji", "en"): {
        "route": "{f} {a} ({x}) ✈️ {g} {b} ({y})",
        "country": "{f} {x} 🌍 {g} {y}",
        "currency": "{f} {x} 💰 {g} {y}",
        "language": "{f} {x} 💬 {g} {y}",
    },
    ("emoji", "zh"): {
        "route": "{f} {a}({x}) ✈️ {g} {b}({y})",
        "country": "{f} {x} 🌍 {g} {y}",
        "currency": "{f} {x} 💰 {g} {y}",
        "language": "{f} {x} 💬 {g} {y}",
    },
    ("brief", "en"): {"route": "{x} to {y}", "country": "{x}, {y}", "currency": "{x}, {y}", "language": "{x}, {y}"},
    ("brief", "zh"): {"route": "{x}到{y}", "country": "{x}、{y}", "currency": "{x}、{y}", "language": "{x}、{y}"},
    ("chinese", "zh"): {
        "route": "从{a}({x})乘飞机到{b}({y})。",
        "country": "{a}在{x}，{b}在{y}。",
        "currency": "{a}用{x}，{b}用{y}。",
        "language": "{a}说{x}，{b}说{y}。",
    },
    ("classical", "zh"): {
        "route": "自{a}({x})至{b}({y})，当乘飞舟，凌云而往也。",
        "country": "{a}者，{x}之城也；{b}者，{y}之城也。",
        "currency": "{a}之市，以{x}易物；{b}之市，则以{y}也。",
        "language": "{a}之民言{x}，{b}之民则言{y}也。",
    },
    ("list", "en"): {
        "route": "- From {a} ({x})\n- To {b} ({y})",
        "country": "- {a}: {x}\n- {b}: {y}",
        "currency": "- {a}: {x}\n- {b}: {y}",
        "language": "- {a}: {x}\n- {b}: {y}",
    },
    ("list", "zh"): {
        "route": "- 从{a}({x})\n- 到{b}({y})",
        "country": "- {a}：{x}\n- {b}：{y}",
        "currency": "- {a}：{x}\n- {b}：{y}",
        "language": "- {a}：{x}\n- {b}：{y}",
    },
}
ANSWERS["plain", "zh"] = ANSWERS["chinese", "zh"]

# the keys of a JSON answer: two with a fact each, or one with both facts in an array
JSON_KEYS: dict[tuple[str, str], tuple[str, ...]] = {
    ("en", "route"): ("from", "to"),
    ("en", "country"): ("countries",),
    ("en", "currency"): ("currencies",),
    ("en", "language"): ("languages",),
    ("zh", "route"): ("从", "到"),
    ("zh", "country"): ("国家",),
    ("zh", "currency"): ("货币",),
    ("zh", "language"): ("语言",),
}
