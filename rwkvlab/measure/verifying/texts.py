"""The texts that `verify` reads: its own, half English, half Chinese, or those given, as ids."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch

from rwkvlab.errors import ArgError, PromptError, RwkvLabError, show
from rwkvlab.model.engine import Model
from rwkvlab.shapes import check_items
from rwkvlab.states.state import State
from rwkvlab.tasks.templates import Template, get_template

PROBED = 48  # tokens whose logits are compared
Text = str | tuple[str, str] | Mapping[str, str]
Ids = tuple[list[int], list[int]]

PROBE = (
    "The lighthouse keeper counted eleven ships before noon, and wrote each name down: Aurora, Swift, Old Tom. "
    "中午以后起了雾，他点亮了灯，等着最后一条船回来。 def total(xs): return sum(xs)  # 3 + 4 = 7"
)

TEXTS: tuple[tuple[str, str], ...] = (
    ("What is the capital of France?", "The capital of France is Paris."),
    ("How many days are there in a week?", "There are seven days in a week."),
    ("Why is the sky blue?", "Air scatters blue light more than red light, so the sky looks blue from the ground."),
    ("Which planet is the largest in the solar system?", "Jupiter is the largest planet in the solar system."),
    ("Hello! How are you today?", "Hello! I'm doing well, thank you. How can I help you?"),
    ("I feel tired after work. Any advice?", "Take a short walk, drink some water, and try to go to bed earlier."),
    ("Translate to Chinese: good morning", "早上好"),
    ("What do bees make?", "Bees make honey and wax."),
    ("Give me a name for a small grey cat.", "How about Misty? It suits a small grey cat."),
    ("What is 12 plus 30?", "12 plus 30 is 42."),
    ("Can you write a short poem about rain?", "Soft rain falls on the quiet street,\nand taps its rhythm at my feet."),
    ("Thank you for your help!", "You're welcome! Let me know if there is anything else."),
    ("中国的首都是哪里？", "中国的首都是北京。"),
    ("一年有多少个月？", "一年有十二个月。"),
    ("水在多少度结冰？", "在标准大气压下，水在零摄氏度结冰。"),
    ("《西游记》的作者是谁？", "一般认为，《西游记》的作者是明代的吴承恩。"),
    ("你好，你是谁？", "你好！我是一个人工智能助手，很高兴为你服务。"),
    ("今天心情不好，怎么办？", "可以出去走走，听听喜欢的音乐，或者和朋友聊聊天。"),
    ("把“谢谢”翻译成英文。", "Thank you."),
    ("为什么要多喝水？", "喝水有助于新陈代谢，也能让身体保持合适的温度。"),
    ("给我的小狗起个名字。", "叫“豆豆”怎么样？听起来可爱又好记。"),
    ("三乘以五等于多少？", "三乘以五等于十五。"),
    ("请用一句话描述秋天。", "秋天天高云淡，树叶变黄，是收获的季节。"),
    ("谢谢你的帮助！", "不客气！如果还有别的问题，随时告诉我。"),
)


def choose_form(template: str | Template, state: State | None) -> Template:
    """Return the template asked for; "auto": that of the state's card, else "world". ArgError lists the names."""
    if template == "auto":
        template = (state.card.template if state is not None else "") or "world"
    return get_template(template)


def encode_texts(model: Model, texts: Iterable[Text] | None, form: Template) -> tuple[list[Ids], int]:
    """Return the ids of prompt and continuation of every text, each once, and how many repetitions were left out."""
    given = list(TEXTS) if texts is None else check_items("texts", texts)
    if not given:
        raise ArgError("texts: empty; give (question, answer) pairs or plain texts, or None for our own")
    out = []
    for number, text in enumerate(given):
        try:
            ids = [model.encode(part) for part in _parts(f"texts[{number}]", text, form)]
            prompt, wanted = (ids[0][:1], ids[0][1:]) if len(ids) == 1 else ids
        except PromptError as error:
            if texts is None:
                raise PromptError(f"the built-in texts: {error}; give texts= that this vocabulary can write") from error
            raise PromptError(f"texts[{number}]: {error}") from error
        if not prompt or not wanted:
            raise PromptError(f"texts[{number}]: too short, no token is left to be judged; give a longer one")
        out.append((prompt, wanted))
    # copies of a text tell no more than one of it, and would make standard errors look small
    different = list({(tuple(prompt), tuple(wanted)): (prompt, wanted) for prompt, wanted in out}.values())
    return different, len(out) - len(different)


def _parts(where: str, text: object, form: Template) -> tuple[str, ...]:
    """Return what is read and what is judged, or a text alone, of which all but its first token is."""
    if isinstance(text, str):
        return (text,)
    raw = isinstance(text, Mapping) and set(text) == {"prompt", "answer"}
    given = [text["prompt"], text["answer"]] if raw else text  # type: ignore[index]
    if not isinstance(given, (tuple, list)) or len(given) != 2 or not all(isinstance(part, str) for part in given):
        need = '(question, answer) pair of texts, {"prompt": …, "answer": …} or a text'
        raise ArgError(f"{where}: need a {need}, got {show(text)}")
    return (given[0], given[1]) if raw else form.example(*given)


def probe(model: Model) -> tuple[list[int], str]:
    """Return the ids after which logits are compared, and what they are."""
    try:
        if model.tokenizer.name == "world":
            ids = model.encode(PROBE)[:PROBED]
            return ids, f"{len(ids)} tokens of a fixed text"
    except RwkvLabError:  # no vocabulary for this model: ids alone will do
        pass
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, model.dims.vocab, (PROBED,), generator=generator).tolist(), f"{PROBED} seeded ids"
