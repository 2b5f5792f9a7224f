"""Every shipped recipe trains: on a tiny model of its architecture and a bundled sample in its format."""

from pathlib import Path

import pytest

from fledge.commands.train import train
from fledge.config.load import load_recipe
from tests.tiny_models import tiny_folder

ROOT = Path(__file__).resolve().parent.parent.parent
SAMPLES = ROOT / "tests" / "samples"

STAND_INS = {
    "bloom-1b7-alpaca": ("bloom", "alpaca.json"),
    "bloom-1b7-readme": ("bloom", "readmes"),
    "llama-2-7b-chat-guanaco": ("llama", "prompts.parquet"),
    "gemma-completion": ("gemma", "completion.csv"),
    "falcon-7b-completion": ("falcon-7b", "completion.csv"),
    "phi-2-completion": ("phi", "completion.csv"),
    "zephyr-7b-completion": ("mistral", "completion.csv"),
    "flan-t5-base-samsum": ("t5", "completion.csv"),
    "flan-t5-xxl-samsum": ("t5", "completion.csv"),
}
QUANTIZED = (
    "bloom-1b7-alpaca",
    "llama-2-7b-chat-guanaco",
    "gemma-completion",
    "falcon-7b-completion",
    "phi-2-completion",
    "zephyr-7b-completion",
    "flan-t5-xxl-samsum",
)
"""Shipped in int8 and nf4 too."""
STAND_INS |= {f"{name}-{kind}": STAND_INS[name] for name in QUANTIZED for kind in ("int8", "nf4")}
OWN_TEST = {"quickstart"}


def test_every_shipped_recipe_has_a_stand_in():
    shipped = {path.stem for path in (ROOT / "recipes").glob("*.yaml")}
    assert shipped == set(STAND_INS) | OWN_TEST
    assert len(shipped) == 24


@pytest.mark.parametrize("name", STAND_INS)
def test_a_shipped_recipe_trains(name, tmp_path):
    architecture, sample = STAND_INS[name]
    base = tiny_folder(architecture, tmp_path / "base")
    overrides = [
        f"model.name_or_path={base}",
        f"data.train.path={SAMPLES / sample}",
        "data.max_length=256",
        "train.max_steps=3",
        "train.learning_rate=1e-2",
        "evaluate.max_rows=4",
        f"output.dir={tmp_path / 'run'}",
    ]
    if sample == "completion.csv":
        overrides += ["data.train.prompt=question", "data.train.completion=answer"]
    if architecture == "t5":
        overrides += ["data.validation=null", "data.test=null"]
    recipe = load_recipe(ROOT / "recipes" / f"{name}.yaml", overrides)
    assert recipe.model.quantization == (name.rsplit("-", 1)[-1] if name.endswith(("-int8", "-nf4")) else "none")
    result = train(recipe)
    assert result.summary["steps"] == 3
    assert result.summary["last_loss"] < result.summary["first_loss"]
