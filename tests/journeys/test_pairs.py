"""Encoder-decoders from recipe to adapter: the losses are the library's, and a killed run goes on to the same bits."""

import json

import pytest
import torch

from fledge.commands.evaluate import Question, evaluate
from fledge.commands.export import export
from fledge.commands.train import train
from fledge.errors import DataError, ModelError
from fledge.rundir import read_events
from tests.journeys.killing import steps_of, train_through_kills
from tests.runs import fledge, load, recipe_dict, write_recipe, write_rows
from tests.tiny_models import PAIRS, tiny_folder


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pairs")
    rows = write_rows(folder / "rows.jsonl")

    def recipe_of(name: str, architecture: str = "t5", **changes):
        base = folder / f"base-{architecture}"
        if not base.exists():
            tiny_folder(architecture, base)
        return recipe_dict(base, rows, folder / name, **changes)

    return folder, recipe_of


@pytest.fixture
def trained(place, monkeypatch):
    folder, recipe_of = place
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder / "cache"))

    def train_it(name: str, architecture: str = "t5", **changes):
        return train(load(folder / f"{name}-recipe", recipe_of(name, architecture, **changes)))

    return train_it


def losses_of(result) -> list[float]:
    return [event["loss"] for event in read_events(result.run / "events.jsonl") if event["event"] == "step"]


def settled_engine(result) -> str:
    return next(line.split()[1] for line in (result.run / "recipe.yaml").read_text().splitlines() if "engine:" in line)


SHAPES = {
    "packed by the engine": {},
    "a row at a time": {"train__micro_batch_rows": 1},
    "padded": {"train__engine": "plain"},
    "padded, three rows at a time": {"train__engine": "plain", "train__micro_batch_rows": 3},
    "packing off": {"data__packing": False},
    "recomputed": {"train__gradient_checkpointing": True},
    "padded and recomputed": {"train__engine": "plain", "train__gradient_checkpointing": True},
}


@pytest.mark.parametrize("dropout", [0.0, 0.2])
def test_losses_do_not_depend_on_how_they_are_computed(trained, dropout):
    found = {
        name: losses_of(trained(f"{name} {dropout}".replace(" ", "-"), lora__lora_dropout=dropout, **changes))
        for name, changes in SHAPES.items()
    }
    wanted = found["packed by the engine"]
    assert len(wanted) == 6
    assert wanted[-1] < wanted[0]
    for name, losses in found.items():
        assert losses == pytest.approx(wanted, rel=1e-5), name


def test_t5_is_computed_by_the_engine_and_bart_padded_by_the_library(trained):
    engine, library = trained("t5"), trained("bart", "bart")
    assert (settled_engine(engine), settled_engine(library)) == ("fast", "plain")
    notices = [event["text"] for event in read_events(library.run / "events.jsonl") if event["event"] == "notice"]
    assert any("on padded rows" in text and "no blocks that the engine knows" in text for text in notices)
    chosen = trained("t5-plain", train__engine="plain")
    notices = [event["text"] for event in read_events(chosen.run / "events.jsonl") if event["event"] == "notice"]
    assert any("on padded rows: the recipe says plain" in text for text in notices)
    assert losses_of(library)[-1] < losses_of(library)[0]


def test_every_linear_of_both_sides_can_be_trained(trained):
    result = trained("all", lora__target_modules="all-linear")
    from_library = trained("all-plain", lora__target_modules="all-linear", train__engine="plain")
    assert losses_of(result) == pytest.approx(losses_of(from_library), rel=1e-5)


def test_validation_and_evaluation_agree_and_answers_are_judged(trained):
    held_out = {"data__validation": {"fraction": 0.25}, "evaluate__every_steps": 3}
    result = trained("judged", **held_out)
    found = evaluate(result.run, question=Question(rouge=True, max_new_tokens=4))
    assert found.tuned.loss == pytest.approx(result.summary["validation_loss"], rel=1e-6)
    assert found.tuned.loss < found.base.loss
    lines = (result.run / "evaluation" / "predictions.jsonl").read_text().splitlines()
    assert len(lines) == found.rows == 12
    assert set(json.loads(lines[0])) >= {"row", "prompt", "reference", "base", "tuned"}


def test_what_makes_no_sense_of_an_encoder_decoder_is_refused(trained):
    with pytest.raises(ModelError, match="rows share no beginning"):
        trained("shared", train__share_prefixes=True)
    with pytest.raises(DataError, match="cannot be trained on it"):
        trained("prompted", data__train_on="all")
    with pytest.raises(ModelError, match="overflows in float16"):
        trained("half", model__dtype="float16")
    with pytest.raises(ModelError, match="positions for 512 tokens"):
        trained("long", "bart", data__max_target_length=600)


@pytest.mark.slow
def test_killed_anywhere_and_resumed_changes_no_bit(place):
    folder, recipe_of = place
    runs = {}
    for name in ("undisturbed", "killed"):
        content = recipe_of(name, lora__lora_dropout=0.1, train__max_steps=12, train__micro_batch_rows=2)
        runs[name] = (write_recipe(folder / f"{name}.yaml", content), folder / name)
    recipe, run = runs["undisturbed"]
    fledge("train", str(recipe))
    digest, steps = json.loads((run / "summary.json").read_text())["adapter_sha256"], steps_of(run)
    outcome = train_through_kills(*runs["killed"], kills=2, seed=1)
    assert outcome.kills
    assert outcome.summary["adapter_sha256"] == digest
    assert outcome.steps == steps


@pytest.mark.parametrize("architecture", PAIRS)
@pytest.mark.parametrize("to", ["hf", "adapter"])
def test_what_is_exported_is_what_was_trained(trained, tmp_path, architecture, to):
    result = trained(f"{to}-{architecture}", architecture)
    exported = export(result.run, tmp_path / "out", to=to)
    checks = exported.certificate["checks"]
    assert checks["logits"]["mean_kl"] <= checks["logits"]["tolerance"]["mean_kl"]
    assert checks["text"]["same"] + checks["text"]["ties"] == checks["text"]["prompts"] == 4
    assert checks["effect"]["mean_kl"] > checks["logits"]["mean_kl"]


def test_the_adapter_is_peft_s_own(trained):
    result = trained("saved")
    config = json.loads((result.run / "adapter" / "adapter_config.json").read_text())
    assert config["task_type"] == "SEQ_2_SEQ_LM"
    generation = json.loads((result.run / "adapter" / "generation_config.json").read_text())
    assert generation["decoder_start_token_id"] == 2
    assert torch.isfinite(torch.tensor(losses_of(result))).all()
