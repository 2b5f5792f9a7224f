"""Every shipped recipe loads, is valid by the schema, and says what it is there to say."""

from pathlib import Path

import jsonschema
import pytest

from fledge.config.document import read_document
from fledge.config.load import load_recipe
from fledge.config.recipe import Recipe, sources
from fledge.config.schema import recipe_schema

FOLDER = Path(__file__).parents[3] / "recipes"
SHIPPED = sorted(FOLDER.glob("*.yaml"))
BASES = {
    "bloom-1b7-alpaca": "bigscience/bloom-1b7",
    "bloom-1b7-readme": "bigscience/bloom-1b7",
    "falcon-7b-completion": "tiiuae/falcon-7b",
    "flan-t5-base-samsum": "google/flan-t5-base",
    "flan-t5-xxl-samsum": "google/flan-t5-xxl",
    "gemma-completion": "google/gemma-2b",
    "llama-2-7b-chat-guanaco": "NousResearch/Llama-2-7b-chat-hf",
    "phi-2-completion": "microsoft/phi-2",
    "quickstart": "builtin:nestling",
    "zephyr-7b-completion": "HuggingFaceH4/zephyr-7b-beta",
}
PLAIN = sorted(set(BASES) - {"quickstart", "bloom-1b7-readme", "flan-t5-base-samsum"})
QUANTIZED = {f"{name}-{kind}": (name, kind) for name in PLAIN for kind in ("int8", "nf4")}
BASES |= {name: BASES[plain] for name, (plain, _) in QUANTIZED.items()}


def shipped(name: str) -> Recipe:
    return load_recipe(FOLDER / f"{name}.yaml")


def test_the_recipes_are_those_that_are_promised() -> None:
    assert sorted(path.stem for path in SHIPPED) == sorted(BASES)
    assert len(SHIPPED) == 24


@pytest.mark.parametrize("name", QUANTIZED)
def test_a_quantised_recipe_is_the_plain_one_in_fewer_bits(name: str) -> None:
    plain, kind = QUANTIZED[name]
    body, wanted = (shipped(each).model_dump(mode="json") for each in (name, plain))
    assert (body["model"].pop("quantization"), wanted["model"].pop("quantization")) == (kind, "none")
    assert body["output"].pop("dir") != wanted["output"].pop("dir")
    assert body == wanted


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_a_shipped_recipe_loads_is_valid_by_the_schema_and_has_a_run_folder_of_its_own(path: Path) -> None:
    recipe = shipped(path.stem)
    assert recipe.model.name_or_path == BASES[path.stem]
    assert recipe.output.dir == str(FOLDER.parent / "runs" / path.stem)
    assert recipe.model.trust_remote_code is False
    tree = read_document(path.read_bytes(), "r").tree
    # a list is a tuple in the tree, for a recipe cannot be changed
    jsonschema.validate(tree, recipe_schema(), cls=_TUPLES)


_TUPLES = jsonschema.validators.extend(
    jsonschema.Draft202012Validator,
    type_checker=jsonschema.Draft202012Validator.TYPE_CHECKER.redefine(
        "array", lambda _, value: isinstance(value, list | tuple)
    ),
)


def test_bloom_on_readmes_trains_what_the_small_bloom_tool_trained() -> None:
    recipe = shipped("bloom-1b7-readme")
    assert (recipe.lora.target_modules, recipe.lora.r) == (("query_key_value",), 8)
    assert recipe.lora.lora_alpha / recipe.lora.r == 4
    train = recipe.train
    assert (train.adam_eps, train.weight_decay, train.max_grad_norm) == (1e-6, 0.1, 1.0)
    assert (train.lr_scheduler, train.gradient_checkpointing) == ("linear", True)
    assert (recipe.data.overlong, sources(recipe.data.train)[0].format) == ("split", "text")


@pytest.mark.parametrize("name", [name for name in BASES if name.endswith("-samsum")])
def test_a_samsum_recipe_trains_summaries_with_the_adapter_of_the_llm_int8_recipe(name: str) -> None:
    recipe = shipped(name)
    [source] = sources(recipe.data.train)
    assert (source.format, source.prompt, source.completion) == ("completion", "dialogue", "summary")
    assert (recipe.lora.r, recipe.lora.lora_alpha, recipe.lora.target_modules) == (16, 32, ("q", "v"))
    assert "CC BY-NC-ND 4.0, non-commercial" in (FOLDER / f"{name}.yaml").read_text()


@pytest.mark.parametrize("name", [name for name in BASES if name.endswith("-completion")])
def test_a_completion_recipe_trains_the_completion_only(name: str) -> None:
    recipe = shipped(name)
    assert recipe.data.train_on == "completion"
    assert sources(recipe.data.train)[0].format == "completion"
