"""Fledge's losses beside those of a plain transformers + peft loop: the same rows, the same start."""

import pytest
import torch

from fledge.commands.steps import row_order
from fledge.commands.train import train
from fledge.data.pipeline import prepare_training
from fledge.models.load_tokenizer import load_tokenizer
from fledge.rundir import RunDir, read_steps
from tests.numbers.plain import plain_losses
from tests.runs import load, recipe_dict, write_rows
from tests.tiny_models import tiny_folder

STEPS, RATE = 12, 1e-2


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("plain")
    return folder, tiny_folder("llama", folder / "base"), write_rows(folder / "rows.jsonl")


def run_of(place, name: str, **changes):
    folder, base, rows = place
    settings = {
        "train__lr_scheduler": "constant",
        "train__warmup_steps": 0,
        "train__global_batch_size": 16,
        "train__max_steps": STEPS,
        "train__save_every_steps": 100,
        "train__keep_checkpoints": 5,
        "train__learning_rate": RATE,
    }
    recipe = load(folder / name, recipe_dict(base, rows, folder / name / "run", **(settings | changes)))
    train(recipe)
    return recipe, RunDir(folder / name / "run")


def reference_of(place, recipe, run, *, micro: int, dtype=torch.float32) -> list[float]:
    _, base, _ = place
    data = prepare_training(
        recipe.data,
        load_tokenizer(recipe.model, recipe.data),
        seed=recipe.train.seed,
        progress=lambda done, total: None,
    )
    order = row_order(recipe, data)
    steps = [
        [
            (row.input_ids.tolist(), row.trained.tolist())
            for row in (data.train.row(index) for index in order.rows_of_step(step))
        ]
        for step in range(1, STEPS + 1)
    ]
    start = run.checkpoint(0) / "adapter"
    return plain_losses(base, start, steps, learning_rate=RATE, micro=micro, dtype=dtype)


def losses(run: RunDir) -> list[float]:
    return [event["loss"] for event in read_steps(run.events)]


def test_losses_equal_a_plain_loop_for_every_micro_batch_packed_or_not(place):
    tried, reference = 0, None
    for micro in (1, 4, 16):
        for packing in (False, True):
            name = f"micro-{micro}-{packing}"
            recipe, run = run_of(place, name, train__micro_batch_rows=micro, data__packing=packing)
            reference = reference or reference_of(place, recipe, run, micro=4)
            ours = losses(run)
            assert len(ours) == STEPS
            assert ours == pytest.approx(reference, abs=1e-5), name
            tried += 1
    assert tried == 6
    assert reference is not None and reference[-1] < reference[0] - 0.1


@pytest.mark.slow
def test_in_bfloat16_the_losses_are_no_further_from_float32_than_a_plain_loops_own(place):
    """Over many orders of the rows: in any one of them the rounding errors of twelve steps fall either way. The mean of
    twelve orders is still 4 % off by chance, of sixty 2 %; there the two differed by 0.1 %.
    """
    ours, theirs = [], []
    settings = {"train__micro_batch_rows": 4, "data__packing": False, "model__dtype": "bfloat16"}
    for seed in range(60):
        recipe, run = run_of(place, f"half-{seed}", train__seed=seed, **settings)
        exact, plain = (reference_of(place, recipe, run, micro=4, dtype=d) for d in (torch.float32, torch.bfloat16))
        ours.append(mean_distance(losses(run), exact))
        theirs.append(mean_distance(plain, exact))
    assert sum(ours) <= sum(theirs) * 1.05, (ours, theirs)


def mean_distance(one: list[float], other: list[float]) -> float:
    return sum(abs(a - b) for a, b in zip(one, other, strict=True)) / len(one)
