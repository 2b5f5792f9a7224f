"""The learning rate as a function of the step."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fledge.config.train import TrainConfig
from fledge.training.schedule import learning_rate_of


def rates(total, **train):
    schedule = learning_rate_of(TrainConfig(learning_rate=1.0, **train), total)
    return [schedule.at(step) for step in range(1, total + 1)]


def test_step_k_of_w_warm_up_steps_uses_k_over_w_of_the_peak():
    assert rates(10, warmup_steps=4, lr_scheduler="constant")[:5] == [0.25, 0.5, 0.75, 1.0, 1.0]


def test_linear_decays_to_zero_one_step_after_the_last():
    assert rates(4, warmup_steps=0, lr_scheduler="linear") == [1.0, 0.75, 0.5, 0.25]


def test_cosine_is_at_half_in_the_middle():
    assert rates(4, warmup_steps=0, lr_scheduler="cosine")[2] == pytest.approx(0.5)


@given(
    total=st.integers(1, 300),
    ratio=st.floats(0, 1),
    kind=st.sampled_from(["cosine", "linear", "constant"]),
)
def test_every_rate_is_above_zero_and_at_most_the_peak(total, ratio, kind):
    all_rates = rates(total, warmup_ratio=ratio, lr_scheduler=kind)
    assert len(all_rates) == total
    assert all(0 < rate <= 1.0 for rate in all_rates)
