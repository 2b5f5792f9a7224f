"""Thirty-three families of transformers, every kind among them: Fledge's losses beside plain transformers and peft.

bench/families.py does the same with every family, six steps and more ways of training.
"""

import pytest

from bench.families_bases import all_names, build, write_rows
from bench.families_flags import SLICE
from bench.families_reference import outcome
from bench.families_runs import EXACT, HELD_OUT, ROWS, apart, rows_of, write_recipe
from fledge.commands.train import train
from fledge.config.load import load_recipe
from fledge.rundir import RunDir, read_steps

STEPS = 3


def test_the_slice_has_thirty_six_bases_that_the_bench_has_too():
    assert len(set(SLICE)) == 36
    assert set(SLICE) <= set(all_names())


@pytest.mark.parametrize("name", SLICE)
def test_losses_are_those_of_each_row_computed_alone_by_plain_peft(name, tmp_path):
    build(name, tmp_path / "base")
    write_rows(tmp_path / "rows.jsonl", count=ROWS, seed=1)
    write_rows(tmp_path / "held-out.jsonl", count=HELD_OUT, seed=2)
    train(load_recipe(write_recipe(tmp_path, "default", steps=STEPS), ()))
    run = RunDir(tmp_path / "default")
    ours = [event["loss"] for event in read_steps(run.events)]
    taken, held_out, settings = rows_of(tmp_path, "default", steps=STEPS)
    start = run.checkpoint(0) / "adapter"
    plain = outcome(tmp_path / "base", start, steps=taken, held_out=held_out, settings=settings)
    assert len(ours) == STEPS
    assert max(apart(one, other) for one, other in zip(ours, plain.losses, strict=True)) <= EXACT
