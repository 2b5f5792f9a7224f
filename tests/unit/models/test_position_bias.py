"""A bias by key position is the library's for every length, made once for the longest and cut."""

import pytest
import torch

from fledge.models.bodies import bloom, falcon
from fledge.models.bodies.position_bias import PositionBias

CPU = torch.device("cpu")
BUILDS = {
    "bloom": (bloom._alibi(6), lambda length: bloom._build_alibi(6, length)),
    "falcon": (falcon._alibi(6, 0.125), lambda length: falcon._build_alibi(6, 0.125, length)),
}


@pytest.mark.parametrize("name", BUILDS)
def test_every_length_has_the_librarys_own_values_in_whatever_order_lengths_come(name):
    bias, build = BUILDS[name]
    for length in (1, 5, 64, 8, 700, 65, 2):
        assert torch.equal(bias(length, CPU), build(length))


def test_it_is_built_again_only_where_it_is_too_short():
    built = []

    def build(length):
        built.append(length)
        return torch.arange(length)[None].float()

    bias = PositionBias(build)
    for length in (5, 3, 8, 9, 16, 1):
        assert bias(length, CPU).tolist() == [list(range(length))]
    assert built == [8, 16]
