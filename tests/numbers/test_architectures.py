"""The first law on every architecture: batch shape, packing and recomputation change no loss."""

import pytest

from fledge.commands.train import train
from fledge.rundir import RunDir, read_steps
from tests.runs import load, recipe_dict, write_rows
from tests.tiny_models import ARCHITECTURES, tiny_folder

SHAPES = (
    {"train__micro_batch_rows": 1, "data__packing": False},
    {"train__micro_batch_rows": 16, "data__packing": False},
    {"train__micro_batch_rows": 4, "data__packing": True, "train__gradient_checkpointing": True},
    {"train__micro_batch_tokens": 64, "data__packing": True},
)


def test_there_are_eleven_architectures():
    assert len(ARCHITECTURES) == 11


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_losses_do_not_depend_on_the_shape_of_the_batches(architecture, tmp_path):
    base, rows = tiny_folder(architecture, tmp_path / "base"), write_rows(tmp_path / "rows.jsonl")
    curves = []
    for number, shape in enumerate(SHAPES):
        content = recipe_dict(
            base,
            rows,
            tmp_path / f"run-{number}",
            train__global_batch_size=16,
            train__max_steps=4,
            lora__lora_dropout=0.1,
            data__validation={"fraction": 0.2},
            **shape,
        )
        result = train(load(tmp_path / str(number), content))
        curve = [event["loss"] for event in read_steps(RunDir(result.run).events)]
        curves.append([*curve, result.summary["validation_loss"]])
    assert len(curves) == len(SHAPES)
    for curve in curves:
        assert len(curve) == 5
        assert curve == pytest.approx(curves[0], abs=1e-5)
    assert curves[0][3] < curves[0][0]
