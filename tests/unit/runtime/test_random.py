"""Generators: saved and put back, and seeds that depend on what they are for."""

import random

import numpy as np
import torch

from fledge.runtime.random import derive_seed, generator_states, restore_generators, seed_everything


def draw():
    return random.random(), float(np.random.rand()), float(torch.rand(()))


def test_restored_generators_repeat_what_they_drew():
    seed_everything(3)
    draw()
    states = generator_states()
    first = [draw() for _ in range(3)]
    restore_generators(states)
    assert [draw() for _ in range(3)] == first


def test_derived_seeds_differ_by_every_part_and_never_by_process():
    seeds = {derive_seed(a, b, c) for a in range(3) for b in range(3) for c in ("x", "y")}
    assert len(seeds) == 18
    assert all(0 <= seed < 2**63 for seed in seeds)
