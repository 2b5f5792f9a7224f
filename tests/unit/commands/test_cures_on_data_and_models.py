"""Mistakes that show on data and base: a cure that names an option, applied as it stands, gets further."""

import copy
import json
import re

import pytest

from fledge.commands.workshop import attach_adapter
from fledge.config.document import read_value
from fledge.data.pipeline import prepare_training
from fledge.errors import FledgeError
from fledge.models.load import load_base
from fledge.models.load_tokenizer import load_tokenizer
from fledge.runtime.device import choose_device
from tests.cures import thawed
from tests.house.test_cures import PYTHON_ARGUMENT, unknown_keys
from tests.runs import load, recipe_dict, write_rows
from tests.tiny_models import tiny_folder

KEY = r"(?:model|data|lora|train|evaluate|output)(?:\.\w+)+"


@pytest.fixture(scope="module")
def bases(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bases")
    own_code = tiny_folder("llama", folder / "own-code")
    config = json.loads((own_code / "config.json").read_text())
    config |= {"model_type": "odd", "auto_map": {"AutoConfig": "odd.OddConfig", "AutoModelForCausalLM": "odd.OddModel"}}
    (own_code / "config.json").write_text(json.dumps(config))
    (own_code / "odd.py").write_text("raise RuntimeError('this code ran')\n")
    return {name: tiny_folder(name, folder / name) for name in ("llama", "gpt2", "t5")} | {"own-code": own_code}


def prepare(recipe):
    prepare_training(recipe.data, load_tokenizer(recipe.model, recipe.data), seed=1, progress=lambda *_: None)


def attach(recipe):
    device = choose_device(recipe.model.placement)
    base = load_base(recipe.model, device=device)
    attach_adapter(recipe, base, tokenizer=load_tokenizer(recipe.model, recipe.data))


LONG = [{"prompt": "one two three " * 40, "completion": " four"}]
ONE = [{"prompt": "one plus one =", "completion": " two"}]
BROKEN = [{"prompt": "one", "completion": 2}, *ONE]
TALK = [{"messages": [{"role": "user", "content": "karen"}, {"role": "assistant", "content": "lomi"}]}] * 4

MISTAKES = {
    "all rows too long": (prepare, LONG, {"data.max_length": 16}),
    "prompts alone too long": (prepare, LONG, {"data.max_length": 16, "data.overlong": "truncate"}),
    "a row too long": (prepare, LONG, {"data.max_length": 16, "data.overlong": "error"}),
    "one row divided": (prepare, ONE, {"data.validation": {"fraction": 0.5}}),
    "a broken row": (prepare, BROKEN, {}),
    "no chat template": (prepare, TALK, {"data.train.format": "chat"}),
    "target length on a causal base": (prepare, ONE, {"data.max_target_length": 64}),
    "t5 trained on prompts": (prepare, ONE, {"base": "t5", "data.train_on": "all"}),
    "t5 on texts": (prepare, [ONE[0] | {"text": "x"}], {"base": "t5", "data.train.format": "text"}),
    "a target by its end": (attach, ONE, {"lora.target_modules": "q_proj"}),
    "a pattern of ends": (attach, ONE, {"lora.target_modules": "(q|v)_proj"}),
    "a layer of another model": (attach, ONE, {"lora.target_modules": ["query_key_value"]}),
    "a pattern of another model": (attach, ONE, {"lora.target_modules": "transformer.*attn"}),
    "a slip in a target": (attach, ONE, {"lora.target_modules": ["q_porj"]}),
    "a slip in a saved module": (attach, ONE, {"lora.modules_to_save": ["lm_hed"]}),
    "pissa in half precision": (attach, ONE, {"model.dtype": "bfloat16", "lora.init_lora_weights": "pissa"}),
    "a quantised module trained whole": (
        attach,
        ONE,
        {"model.quantization": "int8", "lora.modules_to_save": ["q_proj"]},
    ),
    "beyond the positions": (attach, ONE, {"base": "gpt2", "data.max_length": 4096}),
    "no GPU": (attach, ONE, {"model.placement": "gpu"}),
    "no flash attention": (attach, ONE, {"model.attention": "flash", "model.dtype": "bfloat16"}),
    "code of its own": (prepare, ONE, {"base": "own-code"}),
    "code of its own, loaded": (attach, ONE, {"base": "own-code"}),
}


def put(content, dotted, value):
    *path, last = dotted.split(".")
    for part in path:
        content = content.setdefault(part, {})
    content[last] = value


def followed(content, problem):
    """The recipe with the first setting that the cure names; None where the cure names none."""
    changed, cure = copy.deepcopy(content), problem.cure
    setting = re.search(rf"(?:set|write) ({KEY}): (\[.*?\]|[^,;\s]+)", cure)
    key = re.match(KEY, problem.where)
    if setting:
        put(changed, setting[1], thawed(read_value(setting[2].rstrip(":"), ("x",), where="cure").tree))
    elif raised := re.search(rf"raise ({KEY})", cure):
        put(changed, raised[1], 512)
    elif key and (value := re.match(r"(?:write|did you mean) (?:a list, [^:]*: )?('.*?'|\[.*?\]|[\w-]+)", cure)):
        held = thawed(read_value(value[1], ("x",), where="cure").tree)
        is_list = isinstance(followed_value(content, key[0]), list) and held != "all-linear"
        put(changed, key[0], [held] if is_list and not isinstance(held, list) else held)
    elif key and cure.startswith("remove it"):
        *path, last = key[0].split(".")
        holder = changed
        for part in path:
            holder = holder[part]
        del holder[last]
    else:
        return None
    return changed


def followed_value(content, dotted):
    for part in dotted.split("."):
        content = content.get(part, {})
    return content


def told(work, folder, content):
    try:
        work(load(folder, content))
    except FledgeError as error:
        # its own code runs in the end, as was asked for
        return None if "this code ran" in str(error) else error.problems[0]
    except RuntimeError as error:
        assert "this code ran" in str(error)
    return None


@pytest.mark.parametrize("name", MISTAKES)
def test_the_cure_that_names_an_option_gets_further(name, bases, tmp_path, monkeypatch):
    work, rows, changes = MISTAKES[name]
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    content = recipe_dict(bases[changes.get("base", "llama")], path, tmp_path / "run")
    for key, value in changes.items():
        if key != "base":
            put(content, key, value)
    problem = told(work, tmp_path, content)
    if problem is None and name == "no GPU":
        pytest.skip("there is a GPU")
    seen = []
    while problem is not None:
        assert problem not in seen, f"told again: {problem}"
        seen.append(problem)
        assert not PYTHON_ARGUMENT.search(str(problem)) and not unknown_keys(problem.cure), problem
        content = followed(content, problem)
        assert content is not None, f"names nothing to write: {problem}"
        problem = told(work, tmp_path, content)
    assert 1 <= len(seen) <= 3


def test_where_every_row_is_broken_the_cures_say_what_is_wrong_with_the_first(bases, tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps(BROKEN[0]))
    content = recipe_dict(bases["llama"], path, tmp_path / "run", data__invalid_rows="drop")
    problem = told(prepare, tmp_path, content)
    where = "first: rows.jsonl:1: column 'completion' holds a number, not text"
    assert (problem.what, problem.cure) == (
        f"none of the rows can be used: 1 invalid ({where})",
        "write the value as text",
    )


def test_rows_that_were_written_for_these_mistakes_are_fine_without_them(bases, tmp_path):
    rows = write_rows(tmp_path / "rows.jsonl")
    assert told(prepare, tmp_path, recipe_dict(bases["llama"], rows, tmp_path / "run")) is None
