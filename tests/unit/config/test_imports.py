"""The small BLOOM tool's file becomes a recipe, every key accounted for, whatever is in it."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fledge.config.answer import foreign_answer
from fledge.config.document import read_document
from fledge.config.foreign import SAME
from fledge.config.imports import RULES, Imported, translate
from fledge.config.load import read_recipe
from fledge.config.recipe import Recipe, sources
from fledge.errors import RecipeError

FILE = """\
data:
  filenames: [one.txt, "more/*.txt"]
  max_length: 512
  random_state: 7
model:
  transformer:
    pretrained_model_name_or_path: bigscience/bloom-1b7
  lora:
    lora_dim: 8
    lora_scale: 4
    attention_layer_name: query_key_value
optim:
  optimizer: {lr: 1e-4, betas: [0.9, 0.95], eps: 1e-6, weight_decay: 0.1}
  scheduler: {name: linear, num_warmup_steps: 10, num_training_steps: 1000}
train:
  batch_size: 4
  accumulate_grad_batches: 8
  gradient_clip_val: 1.0
  gradient_checkpointing: true
  log_every_n_steps: 10
  save_every_n_train_steps: 100
"""


def translated(text: str) -> Imported:
    return translate(read_document(text.encode(), "bloom.yaml"))


def recipe_of(imported: Imported, folder: Path) -> Recipe:
    (folder / "recipe.yaml").write_text(imported.recipe, encoding="utf-8")
    return read_recipe(folder / "recipe.yaml")


def refused(text: str) -> list[str]:
    with pytest.raises(RecipeError) as caught:
        translated(text)
    return [str(problem) for problem in caught.value.problems]


def test_every_key_is_accounted_for_once_and_in_order() -> None:
    imported = translated(FILE)
    assert [entry.key for entry in imported.account] == list(RULES)
    assert len(RULES) == 20
    assert [entry.key for entry in imported.account if entry.verdict == "not needed"] == ["train.log_every_n_steps"]
    assert all(f"#   {entry}\n" in imported.recipe for entry in imported.account)


def test_the_recipe_says_what_the_file_said(tmp_path: Path) -> None:
    recipe = recipe_of(translated(FILE), tmp_path)
    assert [(source.path, source.format) for source in sources(recipe.data.train)] == [
        ("one.txt", "text"),
        ("more/*.txt", "text"),
    ]
    assert (recipe.data.max_length, recipe.data.overlong, recipe.train.seed) == (512, "split", 7)
    assert recipe.model.name_or_path == "bigscience/bloom-1b7"
    assert (recipe.lora.r, recipe.lora.lora_alpha, recipe.lora.target_modules) == (8, 32.0, ("query_key_value",))
    train = recipe.train
    assert (train.learning_rate, train.adam_betas, train.adam_eps, train.weight_decay) == (1e-4, (0.9, 0.95), 1e-6, 0.1)
    assert (train.lr_scheduler, train.warmup_steps, train.warmup_ratio, train.max_steps) == ("linear", 10, None, 1000)
    assert (train.micro_batch_rows, train.global_batch_size) == (4, 32)
    assert (train.max_grad_norm, train.gradient_checkpointing, train.save_every_steps) == (1.0, True, 100)


def test_what_lora_scale_is_taken_for_is_said() -> None:
    (entry,) = [entry for entry in translated(FILE).account if entry.key == "model.lora.lora_scale"]
    assert entry.to == "lora.lora_alpha = 32.0"
    assert "taken as the multiplier of the adapter's output" in entry.why


WRONG = {
    "  max_length: 512": ("  max_length: long", 'bloom.yaml:3: data.max_length is "long", expected a whole number'),
    "    lora_scale: 4": (
        "    lora_scale: x",
        'bloom.yaml:10: model.lora.lora_scale: "x" where model.lora.lora_scale must',
    ),
    "  batch_size: 4": ("  batch_size: 0", "bloom.yaml:16: train.batch_size: 0 where train.batch_size must be a whole"),
    "name: linear": ("name: polynomial", 'bloom.yaml:14: optim.scheduler.name: there is no schedule "polynomial"'),
    "attention_layer_name: query_key_value": (
        'attention_layer_name: ""',
        'bloom.yaml:11: model.lora.attention_layer_name: "" names no layer',
    ),
    "attention_layer_name: query_key_value\n": ("attention_layer_name: [3]\n", "[3] names no layer"),
    '[one.txt, "more/*.txt"]': ("[]", "bloom.yaml:2: data.filenames: [] is no list of file names"),
    "  random_state: 7": ("  random_state: 7\n  shuffle: true", "bloom.yaml:5: data.shuffle is not a key"),
    "  lora:": ("  lora: 3\n  lorra:", "bloom.yaml:8: model.lora is 3, expected a mapping"),
    "lr: 1e-4": ("lr: 1e-4, lrr: 2", "did you mean optim.optimizer.lr?"),
    "lora_dim: 8": ("lora_dim: 8\n    lora_dim: 9", "bloom.yaml:10: lora_dim is given twice"),
}


@pytest.mark.parametrize(("old", "new_and_words"), WRONG.items())
def test_what_cannot_be_translated_is_refused_with_its_line(old: str, new_and_words: tuple[str, str]) -> None:
    new, words = new_and_words
    assert old in FILE
    assert any(words in problem for problem in refused(FILE.replace(old, new)))


def test_all_that_is_wrong_is_told_at_once() -> None:
    text = """\
data: {filenames: 3, foo: 1, max_length: 017, random_state: x}
train: {gradient_clip_val: -1, batch_size: 0}
optim: {scheduler: {num_warmup_steps: 20, num_training_steps: 10}}
"""
    whole = [problem.split("\n")[0] for problem in refused(text)]
    assert whole == [
        "bloom.yaml: model.transformer.pretrained_model_name_or_path is missing",
        "bloom.yaml:1: 017 can be read as octal or as decimal",
        "bloom.yaml:1: data.foo is not a key of the small BLOOM tool's that can be translated",
        "bloom.yaml:1: data.filenames: 3 is no list of file names",
        'bloom.yaml:1: data.random_state: train.seed is "x", expected a whole number at least 0 and below '
        "9223372036854775808",
        "bloom.yaml:2: train.batch_size: 0 where train.batch_size must be a whole number above 0",
        "bloom.yaml:2: train.gradient_clip_val: train.max_grad_norm is -1, expected a number above 0 or null",
    ]


def test_settings_that_cannot_work_together_are_told_of_the_keys_they_came_from() -> None:
    text = FILE.replace("num_warmup_steps: 10", "num_warmup_steps: 2000").replace("max_length: 512", "max_length: 2")
    problems = refused(text)
    assert [problem.split(",")[0] for problem in problems] == [
        "bloom.yaml:3: data.max_length is 2",
        "bloom.yaml:14: optim.scheduler.num_warmup_steps: train.warmup_steps: 2000 steps of warm-up in a training of "
        "1000\n    write optim.scheduler.num_warmup_steps: 1000",
    ]


def test_a_bare_file_name_never_becomes_a_hub_id(tmp_path: Path) -> None:
    names = "[corpus, one.txt, more/texts, ./here, /there, '*']"
    recipe = recipe_of(translated(FILE.replace('[one.txt, "more/*.txt"]', names)), tmp_path)
    paths = [source.path for source in sources(recipe.data.train)]
    assert paths == ["./corpus", "one.txt", "./more/texts", "./here", "/there", "*"]


def test_no_clipping_is_no_clipping_in_both(tmp_path: Path) -> None:
    for value in ("0", "0.0", "null"):
        changed = FILE.replace("gradient_clip_val: 1.0", f"gradient_clip_val: {value}")
        assert recipe_of(translated(changed), tmp_path).train.max_grad_norm is None


def test_the_least_file_gets_the_defaults_of_a_recipe(tmp_path: Path) -> None:
    least = "data: {filenames: a.txt}\nmodel: {transformer: {pretrained_model_name_or_path: x}}\n"
    recipe = recipe_of(translated(least), tmp_path)
    assert recipe.train.global_batch_size == 32
    assert recipe.lora.lora_alpha == 32.0


@given(st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=40))
def test_no_file_name_can_leave_its_comment_or_its_quotes(name: str) -> None:
    document = read_document(FILE.encode(), f"x{name}.yaml")
    document.tree["data"]["filenames"] = name
    imported = translate(document)
    tree = read_document(imported.recipe.encode(), "r").tree
    assert list(tree) == ["model", "data", "lora", "train"]
    assert tree["data"]["train"]["path"] in (name, f"./{name}")


keys = st.sampled_from(["data", "model", "filenames", "lora", "lora_scale", "train", "batch_size", "x", "optim"])
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3).map(tuple) | st.dictionaries(keys, inner, max_size=4),
)


@given(st.dictionaries(keys, values, max_size=5))
def test_any_tree_is_translated_or_refused_and_never_breaks(tree: dict[str, object]) -> None:
    document = read_document(b"a: 1", "r")
    document.tree = tree
    try:
        translate(document)
    except RecipeError as error:
        assert error.problems


AXOLOTL = """\
base_model: org/base
datasets:
  - {path: org/rows, type: alpaca}
  - {path: json, data_files: rows.jsonl, type: chat_template}
sequence_len: 2048
lora_r: 16
lora_config: {lora_alpha: 32, bias: none}
learning_rate: 0.0002
lr_scheduler: cosine_with_restarts
torch_dtype: bf16
gradient_accumulation_steps: 4
foo: 1
"""


def test_a_file_of_another_tool_is_told_each_key_by_the_recipes_own() -> None:
    whole = dict(problem.split("\n    ") for problem in refused(AXOLOTL))
    none_of_its, *others = whole
    assert "whose files alone are translated" in none_of_its and "`fledge init`" in whole[none_of_its]
    assert [other.split(": ")[1].split()[0] for other in others] == [
        *("base_model", "datasets", "sequence_len", "lora_r", "lora_config.lora_alpha", "lora_config.bias"),
        *("learning_rate", "lr_scheduler", "torch_dtype", "gradient_accumulation_steps", "foo"),
    ]
    assert [whole[other] for other in others] == [
        "in a recipe write model.name_or_path: org/base",
        "in a recipe write data.train: [{path: org/rows, format: alpaca}, "
        "{path: json, data_files: rows.jsonl, format: chat}]",
        "in a recipe write data.max_length: 2048",
        "in a recipe write lora.r: 16",
        "in a recipe write lora.lora_alpha: 32",
        "remove it: biases are not trained",
        "in a recipe write train.learning_rate: 0.0002",
        "in a recipe write train.lr_scheduler: cosine",
        "in a recipe write model.dtype: bfloat16",
        "remove it: train.global_batch_size takes its place: the product of rows per device, devices and this number",
        "remove it, if your training does not depend on it",
    ]


def test_no_option_of_a_recipe_and_no_name_for_one_is_to_be_removed() -> None:
    options = {
        option: f"{name}.{option}"
        for name, field in Recipe.model_fields.items()
        for option in field.annotation.model_fields
    }
    assert len(options) > 60
    for option, key in options.items():
        assert foreign_answer(option, 1).startswith(f"write {key}: "), option
    for name, key in SAME.items():
        assert foreign_answer(name, 1).startswith(f"write {key}: "), name


def test_in_a_file_of_the_tools_own_the_nearest_key_of_the_section_comes_first() -> None:
    problems = refused(FILE.replace("lr: 1e-4", "learning_rate: 1e-4, lrr: 1"))
    assert any("did you mean optim.optimizer.lr?" in problem for problem in problems)
    assert not any("whose files alone" in problem for problem in problems)
