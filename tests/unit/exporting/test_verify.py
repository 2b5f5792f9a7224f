"""The comparison that an export stands or falls by: what it lets pass and what it does not."""

import math
from dataclasses import replace

import pytest
import torch

from fledge.errors import ProofError
from fledge.exporting.behaviour import MAX_VALUES, Behaviour, fit_rows
from fledge.exporting.verify import (
    LEAST_SLACK,
    TOLERANCES,
    Distance,
    check_answers,
    check_distance,
    check_tensors,
    digest_of,
    digests_of,
    distance,
    slack_of,
    tolerance_of,
)

V = 50


def logits(*, seed: int = 0, count: int = 6) -> torch.Tensor:
    return 3 * torch.randn(count, V, generator=torch.Generator().manual_seed(seed))


def test_distance_is_zero_for_the_same_and_counts_positions():
    same = distance([logits(), logits(seed=1)], [logits(), logits(seed=1)])
    assert (same.max_abs, same.relative, same.mean_kl, same.positions) == (0.0, 0.0, 0.0, 12)


def test_distance_is_that_of_the_formula():
    left, right = logits(), logits(seed=1)
    p, q = torch.softmax(left.double(), -1), torch.softmax(right.double(), -1)
    found = distance([left], [right])
    assert found.mean_kl == pytest.approx((p * (p / q).log()).sum(-1).mean().item(), rel=1e-9)
    assert found.max_kl == pytest.approx((p * (p / q).log()).sum(-1).max().item(), rel=1e-9)
    assert found.max_abs == pytest.approx((left - right).abs().max().item())
    assert found.mean_abs == pytest.approx((left - right).abs().mean().item())
    assert found.relative == pytest.approx(found.max_abs / left.abs().max().item())


@pytest.mark.parametrize("broken", [torch.full((6, V), math.nan), torch.full((6, V), math.inf), torch.zeros(6, V + 1)])
def test_logits_that_are_not_finite_or_of_another_shape_are_infinitely_far(broken):
    for left, right in ((logits(), broken), (broken, logits()), (broken, broken + math.nan)):
        found = distance([left], [right])
        assert found.mean_kl == found.relative == math.inf
        with pytest.raises(ProofError):
            check_distance(found, TOLERANCES["bfloat16"], of="it")


@pytest.mark.parametrize("dtype", TOLERANCES)
def test_rounding_to_a_number_format_passes_its_tolerance_and_five_times_that_does_not(dtype):
    assert len(TOLERANCES) == 3
    exact = logits(count=40)
    rounded = exact.to(getattr(torch, dtype)).float()
    check_distance(distance([exact], [rounded]), TOLERANCES[dtype], of="it")
    scale = exact.abs().max()
    noise = 5 * TOLERANCES[dtype].relative * scale * torch.sign(logits(seed=3, count=40))
    with pytest.raises(ProofError, match="logits differ by"):
        check_distance(distance([exact], [exact + noise]), TOLERANCES[dtype], of="it")


def test_the_widest_of_two_formats_decides():
    assert tolerance_of("float32", "bfloat16") == tolerance_of("bfloat16", "float16") == TOLERANCES["bfloat16"]
    assert tolerance_of("float32") == TOLERANCES["float32"]


STOPS = frozenset({0})


def expected_answers() -> Behaviour:
    """One prompt, answered 7 8 9; token 8 was as good as tied with 4, and the end after 9 with going on to 5."""
    said = torch.zeros(4, V)
    for place, token in enumerate((7, 8, 9)):
        said[place, token] = 5.0
    said[1, 4] = 4.9999
    said[3, 0], said[3, 5] = 5.0, 4.9999
    return Behaviour((), ((7, 8, 9),), (said,))


@pytest.mark.parametrize(
    ("answer", "figures"),
    [((7, 8, 9), (1, 0, [None])), ((7, 4, 30, 31), (0, 1, [1])), ((7, 8, 9, 5), (0, 1, [3]))],
)
def test_the_same_answer_and_a_tie_pass(answer, figures):
    expected = expected_answers()
    found = check_answers(expected, [answer], stop_ids=STOPS, slack=1e-4)
    assert (found["same"], found["ties"], found["parted_at"]) == figures


@pytest.mark.parametrize("answer", [(7, 3, 9), (7, 8), (1,), (7, 8, 9, 6), ()])
def test_another_answer_does_not_pass(answer):
    expected = expected_answers()
    with pytest.raises(ProofError, match="greedy answer to prompt 1 differs"):
        check_answers(expected, [answer], stop_ids=STOPS, slack=1e-4)


@pytest.mark.parametrize("slack", [math.nan, 1e-4])
def test_a_gap_or_a_slack_that_is_no_number_does_not_pass(slack):
    expected = expected_answers()
    broken = replace(expected, answer_logits=(torch.full((4, V), math.nan),))
    with pytest.raises(ProofError):
        check_answers(broken, [(7, 4, 30)], stop_ids=STOPS, slack=slack)
    with pytest.raises(ProofError):
        check_answers(broken, [(7, 8, 9)], stop_ids=STOPS, slack=slack)
    with pytest.raises(ProofError):
        check_answers(expected, [(7, 3, 9)], stop_ids=STOPS, slack=math.nan)


@pytest.mark.parametrize("dtype", TOLERANCES)
def test_slack_follows_the_error_only_as_far_as_the_number_format_explains(dtype):
    tolerance = TOLERANCES[dtype]
    small = Distance(10 * tolerance.tie, tolerance.tie / 2, 0.0, 6)
    assert slack_of(small, tolerance) == small.max_abs
    bound = [slack_of(Distance(20 * share, share, 0.0, 6), tolerance) for share in (0.5, 1.0, 100.0)]
    assert bound == pytest.approx([20 * tolerance.tie] * 3)
    assert tolerance.tie < tolerance.relative
    assert slack_of(distance([logits()], [logits()]), tolerance) == LEAST_SLACK
    expected = expected_answers()
    with pytest.raises(ProofError):
        check_answers(expected, [(3,)], stop_ids=STOPS, slack=slack_of(Distance(5.0, 1.0, 0.0, 6), tolerance))


def test_tensors_must_have_the_bits_that_were_written():
    written = {"a": digest_of(torch.ones(3)), "b": digest_of(torch.zeros(2))}
    assert check_tensors(written, dict(written)) == {"tensors": 2, "differing": 0}
    changed = {**written, "b": digest_of(torch.tensor([0.0, 1e-30]))}
    for read in ({"a": written["a"]}, {**written, "c": written["a"]}, changed):
        with pytest.raises(ProofError, match="1 tensors are not what was written"):
            check_tensors(written, read)


def test_a_digest_tells_number_format_shape_and_every_bit_apart_and_sees_through_strides():
    plain = torch.arange(6.0).view(2, 3)
    others = [plain.view(3, 2), plain.to(torch.bfloat16), plain + 1e-6, -plain, torch.tensor(0.0), torch.zeros(0)]
    assert len({digest_of(each) for each in (plain, *others)}) == 7
    assert digest_of(plain.t().contiguous().t()) == digest_of(plain)
    assert digests_of(torch.nn.Linear(2, 1)).keys() == {"weight", "bias"}


def test_rows_are_cut_so_that_their_logits_fit():
    rows = [list(range(500))] * 8
    assert fit_rows(rows, vocab_size=100) == tuple(tuple(row) for row in rows)
    cut = fit_rows(rows, vocab_size=250_880)
    assert len(cut) == 8 and sum(map(len, cut)) * 250_880 <= MAX_VALUES
