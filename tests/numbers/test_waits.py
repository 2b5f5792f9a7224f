"""Loss and gradients ask nothing of their device on the way, so that a GPU is never waited for."""

import pytest
import torch

from fledge.engine.block import Keep
from tests.numbers.engine_models import VARIANTS, batch_of, model_of
from tests.numbers.on_meta import META, Copies, assert_asks_nothing


@pytest.mark.parametrize(("share", "keep"), [(False, Keep.ALL), (True, Keep.INPUT)])
@pytest.mark.parametrize("name", VARIANTS)
def test_loss_and_gradients_are_computed_without_a_value_or_a_copy(name, share, keep, scratch):
    assert_asks_nothing(model_of(name, scratch), batch_of(share=share), keep=keep)


def test_a_copy_is_seen_and_a_value_cannot_be_read():
    there, here = torch.zeros(2, device=META), torch.zeros(2)
    with Copies() as copies:
        here.to(META)
        there.copy_(here)
        torch.cat([there, there])
    assert copies.found == ["aten._to_copy.default", "aten.copy_.default"]
    for read in (lambda: there.sum().item(), lambda: bool(there.any()), there.tolist, there.nonzero):
        with pytest.raises((RuntimeError, NotImplementedError)):
            read()
