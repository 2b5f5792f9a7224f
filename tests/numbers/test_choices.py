"""Before a training: rows of a model that takes the highest of equal scores are computed alone."""

from typing import Any

import pytest
import torch

from fledge.commands.choices import choices
from fledge.commands.layout import Chosen, choose_layout
from fledge.commands.library_loss import plain_loss
from tests.numbers.alone_models import LENGTHS, recipe, small_model, trials_of

INDEXED = ("axk2", "hy_v4", "deepseek_v32", "glm_moe_dsa", "deepseek_v4")
"""Their indexers sum what relu leaves of a few heads, so some keys of a row have a score of zero."""
OF_EACH_POSITION = "qwen4_exp_text"
"""The same, but each position ranks what it alone may see, however wide the row is."""
OF_EXPERTS = ("mixtral", "deepseek_v3")


def chosen_for(model: Any) -> Chosen:
    facts, trials = trials_of(model)
    return choose_layout(recipe(), model, facts=facts, trials=trials)


@pytest.mark.parametrize("kind", INDEXED)
def test_rows_whose_keys_rank_alike_are_computed_alone(kind):
    chosen = chosen_for(small_model(kind))
    assert chosen.layout == "single"
    assert chosen.notice == (
        "each row is computed alone: the model takes the 8 highest of a row's scores, and which of equal ones depends "
        "on the rows beside it"
    )


@pytest.mark.parametrize("kind", INDEXED)
def test_rows_of_which_no_key_is_left_out_are_padded(kind):
    assert chosen_for(small_model(kind, index_topk=max(LENGTHS))).layout == "padded"


def test_a_choice_that_does_not_depend_on_the_width_costs_nothing():
    model = small_model(OF_EACH_POSITION)
    facts, trials = trials_of(model)
    seen = choices(lambda batch: plain_loss(facts, None).logits(model, batch), trials.long.batch([1], is_packed=False))
    assert seen.tied
    assert chosen_for(model).layout == "padded"


@pytest.mark.parametrize("kind", OF_EXPERTS)
def test_a_router_chooses_among_its_experts_and_not_among_positions(kind):
    model = small_model(kind)
    facts, trials = trials_of(model)
    seen = choices(lambda batch: plain_loss(facts, None).logits(model, batch), trials.long.batch([1], is_packed=False))
    assert seen.slots
    assert chosen_for(model).layout == "packed"


def test_scores_that_a_mask_hides_are_not_equal_ones():
    scores = torch.tensor([[3.0, 1.0, -torch.inf, -torch.inf], [2.0, 1.0, 0.5, torch.finfo(torch.float32).min]])
    tied = torch.tensor([[3.0, 0.0, 0.0, -torch.inf]])
    for given, expected in ((scores, set()), (torch.cat([scores, tied]), {(4, 2)})):
        seen = choices(lambda _, given=given: given.topk(2, dim=-1).values, None)
        assert seen.tied == expected
        assert seen.slots == {(4, 2): len(given)}
