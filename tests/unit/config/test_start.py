"""What an adapter's folder says is taken into the recipe; what cannot be used is refused in words, with its line."""

import json
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fledge.config.adapter_file import describe_adapter
from fledge.config.load import dump_recipe, load_recipe
from fledge.errors import FledgeError, ModelError, RecipeError

GOOD = {
    "peft_type": "LORA",
    "task_type": "CAUSAL_LM",
    "r": 8,
    "lora_alpha": 16,
    "target_modules": ["v_proj", "q_proj"],
    "base_model_name_or_path": "somebody/base",
}


def adapter(folder: Path, changes: dict[str, Any] | None = None, *, weights: str = "adapter_model.safetensors") -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "adapter_config.json").write_text(json.dumps(GOOD | (changes or {})))
    (folder / weights).write_bytes(b"")
    return folder


def recipe(folder: Path, lora: str, *, model: str = "somebody/base") -> Path:
    path = folder / "recipe.yaml"
    (folder / "rows.jsonl").write_text("")
    text = f"model:\n  name_or_path: {model}\ndata:\n  train: {{path: rows.jsonl, format: text}}\n{lora}"
    path.write_text(text)
    return path


def test_what_a_recipe_leaves_open_is_the_adapters_and_what_is_dumped_loads_as_the_same(tmp_path: Path) -> None:
    adapter(tmp_path / "start", {"use_rslora": True, "lora_dropout": 0.05, "modules_to_save": ["lm_head"]})
    path = recipe(tmp_path, "lora:\n  init_from: start\n  lora_alpha: 16\n")
    found = load_recipe(path)
    lora = found.lora
    assert (lora.r, lora.lora_alpha, lora.target_modules) == (8, 16, ("q_proj", "v_proj"))
    assert (lora.use_rslora, lora.lora_dropout, lora.modules_to_save) == (True, 0.05, ("lm_head",))
    assert lora.init_from == str(tmp_path / "start")
    saved = tmp_path / "saved.yaml"
    saved.write_text(dump_recipe(found))
    assert load_recipe(saved) == found
    assert load_recipe(path, ["lora.lora_dropout=0"]).lora.lora_dropout == 0


def test_every_value_that_differs_is_refused_with_its_line(tmp_path: Path) -> None:
    adapter(tmp_path / "start")
    text = (
        "lora:\n  r: 4\n  lora_alpha: 16.0\n  target_modules: [q_proj]\n  use_dora: true\n  init_lora_weights: true\n"
    )
    path = recipe(tmp_path, text + "  init_from: start\n")
    with pytest.raises(RecipeError) as caught:
        load_recipe(path)
    told = {problem.where.rpartition(":")[2]: problem for problem in caught.value.problems}
    assert {line: problem.what.partition(":")[0] for line, problem in told.items()} == {
        "6": "lora.r",
        "8": "lora.target_modules",
        "9": "lora.use_dora",
        "10": "lora.init_lora_weights",
    }
    assert all(problem.cure.startswith("remove it") for problem in told.values())
    assert "the adapter of lora.init_from has r: 8" in told["6"].what
    with pytest.raises(RecipeError, match=r"has lora_alpha: 16"):
        load_recipe(recipe(tmp_path, "lora: {init_from: start}\n"), ["lora.lora_alpha=8"])


REFUSED = {
    "no LoRA: its peft_type is \"IA3\"": {"peft_type": "IA3"},
    "no LoRA: its peft_type is \"LOHA\"": {"peft_type": "LOHA"},
    "no LoRA: its peft_type is \"PROMPT_TUNING\"": {"peft_type": "PROMPT_TUNING"},
    "no LoRA: its peft_type is null": {"peft_type": None},
    "its task_type is \"SEQ_CLS\", it classifies whole texts": {"task_type": "SEQ_CLS"},
    "it gives embeddings": {"task_type": "FEATURE_EXTRACTION"},
    "a base that its start changed: its init_lora_weights is pissa_niter_4": {"init_lora_weights": "pissa_niter_4"},
    "it is set to bias: \"all\"": {"bias": "all"},
    "it repeats layers of its base": {"layer_replication": [[0, 2]]},
    "in a way that Fledge does not know": {"a_newer_kind": {"rank": 2}},
    "r is true, expected a number": {"r": True},
    "r is 2.5, expected a number": {"r": 2.5},
    "use_dora is \"yes\", expected true or false": {"use_dora": "yes"},
    "rank_pattern is {\"q\": 0}, expected a table of numbers": {"rank_pattern": {"q": 0}},
    "does not name its target_modules": {"target_modules": None},
    "trainable_token_indices is 3, expected lists of whole numbers": {"trainable_token_indices": 3},
}  # fmt: skip


@pytest.mark.parametrize("words", REFUSED)
def test_what_cannot_be_trained_further_is_refused_in_words(words: str, tmp_path: Path) -> None:
    adapter(tmp_path / "start", REFUSED[words])
    with pytest.raises(RecipeError) as caught:
        load_recipe(recipe(tmp_path, "lora: {init_from: start}\n"))
    [problem] = caught.value.problems
    assert words in problem.what and problem.where.endswith("recipe.yaml:5") and problem.cure


def test_unknown_keys_that_are_off_and_null_keys_are_left_out_and_named(tmp_path: Path) -> None:
    found = describe_adapter(adapter(tmp_path, {"newer": None, "other": [], "rank_pattern": None, "eva_config": None}))
    assert found.settings["rank_pattern"] == {} and found.base == "somebody/base"
    [said] = found.notices
    assert "newer, which is not known here and is off" in said and "rank_pattern, which is null" in said
    assert "eva_config" not in said and describe_adapter(adapter(tmp_path / "plain")).notices == ()


def test_pickled_weights_are_refused_and_the_cure_is_a_command_that_works(tmp_path: Path) -> None:
    adapter(tmp_path, weights="adapter_model.bin")
    torch.save({"a": torch.ones(2)}, tmp_path / "adapter_model.bin")
    with pytest.raises(ModelError, match="its weights are pickled") as caught:
        describe_adapter(tmp_path)
    command = shlex.split(caught.value.problems[0].cure.partition("write such once: ")[2])
    subprocess.run([sys.executable, *command[1:]], check=True)
    assert describe_adapter(tmp_path).settings["r"] == 8


@pytest.mark.parametrize("text", ["", "{", "[]", "3", '{"a":' * 2000])
def test_settings_that_are_no_json_object_are_told(text: str, tmp_path: Path) -> None:
    adapter(tmp_path)
    (tmp_path / "adapter_config.json").write_text(text)
    with pytest.raises(ModelError, match="settings of the adapter"):
        describe_adapter(tmp_path)


_ANY = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 99) | st.floats() | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=4), inner, max_size=2),
    max_leaves=4,
)
_KEYS = ["r", "lora_alpha", "target_modules", "rank_pattern", "use_dora", "trainable_token_indices", "peft_type", "new"]


@given(key=st.sampled_from([*_KEYS, "task_type", "init_lora_weights", "bias", "base_model_name_or_path"]), value=_ANY)
def test_any_settings_are_described_or_refused_in_words(key: str, value: Any, tmp_path_factory: Any) -> None:
    folder = adapter(tmp_path_factory.getbasetemp() / "any", {key: value})
    try:
        found = describe_adapter(folder)
    except FledgeError as error:
        assert error.problems[0].cure
    else:
        assert isinstance(found.token_rows, frozenset) and found.settings["r"] >= 0


def test_a_start_that_is_not_there_is_told_with_its_line_and_relative_paths_start_from_the_recipe(
    tmp_path: Path,
) -> None:
    adapter(tmp_path / "start")
    for text, words, cure in (
        ("stat", "there is no stat", "did you mean start?"),
        ("somebody/adapter", "there is no somebody/adapter", "hf download somebody/adapter"),
        ("start/adapter_config.json", "is a file", f"write {tmp_path / 'start'}"),
        (".", "holds no adapter", "give a run folder"),
    ):
        with pytest.raises(RecipeError) as caught:
            load_recipe(recipe(tmp_path, f"lora: {{init_from: {text}}}\n"))
        [problem] = caught.value.problems
        assert words in problem.what and cure in problem.cure and problem.where.endswith(":5"), problem


def test_an_adapter_as_the_base_is_called_one_with_where_it_belongs(tmp_path: Path) -> None:
    adapter(tmp_path / "start")
    with pytest.raises(RecipeError) as caught:
        load_recipe(recipe(tmp_path, "", model="./start"))
    [problem] = caught.value.problems
    assert problem.what == "./start is an adapter, not a base" and problem.where.endswith(":2")
    assert "set model.name_or_path to somebody/base" in problem.cure
    assert f"lora.init_from: {tmp_path / 'start'}" in problem.cure
