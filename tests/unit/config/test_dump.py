"""A recipe that is written out and read back is the same recipe, whatever is in it."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fledge.config.data import DataConfig, SourceConfig, ValidationFraction
from fledge.config.document import read_document
from fledge.config.dump import dump_recipe, scalar
from fledge.config.load import load_recipe, read_recipe
from fledge.config.lora import LoraSection
from fledge.config.model import ModelConfig
from fledge.config.output import OutputConfig
from fledge.config.recipe import Recipe
from fledge.config.train import TrainConfig

WORDS = [
    "null",
    "~",
    "yes",
    "No",
    "1e-4",
    "017",
    "0x1",
    "true",
    "<<",
    "- a",
    "a: b",
    "#",
    "*a",
    "&a",
    "!x",
    "%y",
    "2024-01-01",
]
texts = st.one_of(st.sampled_from(WORDS), st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20))
sources = st.builds(
    SourceConfig,
    path=texts,
    format=st.sampled_from(["alpaca", "chat", "completion", "text"]),
    weight=st.floats(min_value=1e-300, max_value=1000, exclude_min=True),
    columns=st.dictionaries(texts, texts, max_size=3),
    prompt=texts,
    prompt_template=st.none() | texts,
    prompt_prefix=st.text(st.characters(exclude_categories=["Cs"]), max_size=20),
)
mixtures = st.lists(sources, min_size=1, max_size=3).map(tuple)
fractions = st.builds(ValidationFraction, fraction=st.floats(1e-9, 0.999))
recipes = st.builds(
    Recipe,
    model=st.builds(ModelConfig, name_or_path=texts, dtype=st.sampled_from(["float32", "bfloat16", "float16"])),
    data=st.builds(
        DataConfig,
        train=sources | mixtures,
        validation=sources | mixtures | fractions | st.none(),
        test=sources | mixtures | st.none(),
        new_special_tokens=st.lists(texts, max_size=3).map(tuple),
    ),
    lora=st.builds(LoraSection, target_modules=texts | st.lists(texts, min_size=1, max_size=3).map(tuple)),
    train=st.builds(
        TrainConfig,
        learning_rate=st.floats(min_value=0, max_value=1, exclude_min=True),
        adam_eps=st.floats(min_value=0, exclude_min=True, allow_infinity=False),
        max_grad_norm=st.none() | st.floats(min_value=0, exclude_min=True, allow_infinity=False),
        micro_batch_tokens=st.just("auto") | st.integers(8, 2**62),
        gradient_checkpointing=st.just("auto") | st.booleans(),
        seed=st.integers(0, 2**63 - 1),
    ),
    output=st.builds(OutputConfig, dir=texts, trackers=st.sampled_from([(), ("wandb",), ("wandb", "tensorboard")])),
)


@settings(max_examples=100, deadline=None)
@given(recipe=recipes)
def test_a_recipe_written_out_and_read_back_is_equal(recipe: Recipe, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.getbasetemp() / "dumped.yaml"
    text = dump_recipe(recipe)
    path.write_text(text, encoding="utf-8")
    read = read_recipe(path)
    assert read == recipe
    assert dump_recipe(read) == text


@given(texts)
def test_any_text_is_written_as_one_line_that_reads_back(text: str) -> None:
    line = f"key: {scalar(text)}"
    assert len(line.splitlines()) == 1
    assert read_document(line.encode(), "r").tree == {"key": text}


def test_a_number_is_written_so_that_yaml_1_1_reads_a_number_too() -> None:
    assert [scalar(1e-05), scalar(0.0003), scalar(3.0), scalar(1.5e300), scalar(7)] == [
        "1.0e-05", "0.0003", "3.0", "1.5e+300", "7",
    ]  # fmt: skip


def test_a_loaded_recipe_loads_again_from_anywhere(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text("{}\n")
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("model: {name_or_path: builtin:nestling}\ndata:\n  train: {path: rows.jsonl, format: text}\n")
    loaded = load_recipe(recipe)
    (tmp_path / "elsewhere").mkdir()
    kept = tmp_path / "elsewhere" / "kept.yaml"
    kept.write_text(dump_recipe(loaded))
    assert load_recipe(kept) == loaded
