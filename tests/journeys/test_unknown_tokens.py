"""A tokenizer that knows more tokens than its base has embeddings for, as some copies of Llama-2 do."""

import json

import gguf
import pytest
from transformers import AutoTokenizer

from fledge.commands.evaluate import Question, evaluate
from fledge.commands.export import export
from fledge.commands.generate import Prompt, generate
from fledge.commands.open_run import open_run
from fledge.commands.train import train
from fledge.errors import FledgeError, ModelError
from tests.runs import load, recipe_dict, write_rows
from tests.tiny_models import VOCABULARY, tiny_folder

PAD = "<pad>"


@pytest.fixture
def base(tmp_path):
    """Its tokenizer pads with a token that the model was never given a row for."""
    folder = tiny_folder("llama", tmp_path / "base")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.add_special_tokens({"pad_token": PAD})
    assert tokenizer.pad_token_id == VOCABULARY
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture
def rows(tmp_path):
    return write_rows(tmp_path / "rows.jsonl")


@pytest.fixture
def rows_with_it(rows):
    lines = rows.read_text().splitlines()
    lines[4] = json.dumps({"prompt": f"one {PAD} two", "completion": " three"})
    other = rows.with_name("with.jsonl")
    other.write_text("\n".join(lines))
    return other


@pytest.mark.parametrize("engine", ["plain", "auto"])
def test_what_pads_is_a_token_that_the_base_knows(engine, base, rows, tmp_path):
    content = recipe_dict(base, rows, tmp_path / "run", train__engine=engine, data__packing=False)
    content["data"]["validation"] = content["data"]["train"]
    content["evaluate"] = {"exact_match": True, "max_new_tokens": 4}
    run = train(load(tmp_path / "recipe", content)).run
    assert open_run(run).tokenizer.pad_token_id == 1
    assert evaluate(run, question=Question(max_rows=8)).tuned.exact_match is not None
    for to in ("adapter", "hf", "gguf"):
        assert export(run, tmp_path / to, to=to).certificate["passed"]
    (file,) = (tmp_path / "gguf").glob("*.gguf")
    fields = gguf.GGUFReader(file).fields
    assert len(fields[gguf.Keys.Tokenizer.LIST].data) == VOCABULARY
    assert gguf.Keys.Tokenizer.PAD_ID not in fields
    told = json.loads((tmp_path / "gguf" / "certificate.json").read_text())["remarks"]
    assert told == [f"1 of the tokenizer's tokens, {PAD!r} the first, have no embedding in the base and are left out"]


@pytest.mark.parametrize("which", ["train", "validation"])
def test_a_row_with_a_token_without_an_embedding_is_named_before_the_first_step(
    which, base, rows, rows_with_it, tmp_path
):
    content = recipe_dict(base, rows, tmp_path / "run")
    content["data"] |= {which: {"path": str(rows_with_it), "format": "completion"}, "sanitize_control_tokens": False}
    with pytest.raises(ModelError) as caught:
        train(load(tmp_path / "recipe", content))
    assert f"with.jsonl:5 has the token '{PAD}' ({VOCABULARY}), and this base has embeddings for 320" in str(
        caught.value
    )
    assert "put the base's own tokenizer beside it" in str(caught.value)
    assert not (tmp_path / "run" / "adapter").exists()


def test_a_prompt_or_row_with_one_is_refused_after_the_training_too(base, rows, rows_with_it, tmp_path):
    content = recipe_dict(base, rows, tmp_path / "run", train__max_steps=1)
    content["data"] |= {"test": {"path": str(rows_with_it), "format": "completion"}, "sanitize_control_tokens": False}
    run = train(load(tmp_path / "recipe", content)).run
    with pytest.raises(FledgeError, match=f"the prompt has the token {VOCABULARY}, .*embeddings for 320"):
        generate(run, prompt=Prompt(f"one {PAD} two", is_raw=True))
    with pytest.raises(ModelError, match=rf"with\.jsonl:5 has the token '{PAD}'"):
        evaluate(run, question=Question(on="test"))
