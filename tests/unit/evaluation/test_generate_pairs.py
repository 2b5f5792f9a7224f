"""Generation by encoder-decoders and by beams says what the model says, whatever is in the same batch."""

import itertools
from collections.abc import Sequence

import pytest
import torch
from transformers import AutoModelForCausalLM, PreTrainedModel

from fledge.errors import FledgeError
from fledge.evaluation import batching
from fledge.evaluation import generate as module
from fledge.evaluation.generate import Sampling, generate, stream
from tests.tiny_models import tiny_folder
from tests.unit.evaluation.pairs import PAD, tiny_bart, tiny_t5
from tests.unit.evaluation.test_generate import PROMPTS, Letters

MODELS = {"t5": (tiny_t5, PAD), "bart": (tiny_bart, 1)}
"""A model, and what its decoder starts with."""
GREEDY, BEAMS = Sampling(8), Sampling(8, num_beams=4)


@pytest.fixture(params=MODELS)
def pair(request: pytest.FixtureRequest) -> tuple[PreTrainedModel, int]:
    make, start = MODELS[request.param]
    return make(), start


def whole_logits(model: PreTrainedModel, source: Sequence[int], target: Sequence[int]) -> torch.Tensor:
    """[target, vocabulary] of one prompt alone, by one whole forward pass; of a causal model too."""
    with torch.no_grad():
        if model.config.is_encoder_decoder:
            ids = torch.tensor([list(source)])
            return model(input_ids=ids, decoder_input_ids=torch.tensor([list(target)]), use_cache=False).logits[0]
        ids = torch.tensor([[*source, *target]])
        return model(input_ids=ids, use_cache=False).logits[0, len(source) :]


def by_hand(model: PreTrainedModel, start: int, source: Sequence[int], count: int) -> tuple[int, ...]:
    """Greedy ids from whole forward passes of one prompt alone, one for each token."""
    target = [start]
    for _ in range(count):
        target.append(int(whole_logits(model, source, target)[-1].argmax()))
    return tuple(target[1:])


def log_probability(model: PreTrainedModel, start: int, source: Sequence[int], answer: Sequence[int]) -> float:
    logits = torch.log_softmax(whole_logits(model, source, [start, *answer[:-1]]).double(), dim=-1)
    return float(logits[torch.arange(len(answer)), list(answer)].sum())


def test_greedy_answers_of_a_batch_are_those_of_each_prompt_alone_by_whole_forward_passes(pair):
    model, start = pair
    together = generate(model, Letters(), prompts=PROMPTS, sampling=GREEDY)
    assert [answer.ids for answer in together] == [by_hand(model, start, prompt, 8) for prompt in PROMPTS]
    assert len({answer.ids for answer in together}) > 1


@pytest.mark.parametrize("sampling", [GREEDY, BEAMS], ids=["greedy", "beams"])
def test_a_batch_changes_no_answer(pair, sampling, monkeypatch):
    model, _ = pair
    together = generate(model, Letters(), prompts=PROMPTS, sampling=sampling)
    monkeypatch.setattr(batching, "MAX_ROWS", 1)
    assert generate(model, Letters(), prompts=PROMPTS, sampling=sampling) == together


def test_a_batch_changes_no_answer_of_a_causal_model_by_beams(causal, monkeypatch):
    for stops in (frozenset(), frozenset(range(40, 90))):
        together = generate(causal, Letters(stop_ids=stops), prompts=PROMPTS, sampling=BEAMS)
        with monkeypatch.context() as patch:
            patch.setattr(batching, "MAX_ROWS", 1)
            assert generate(causal, Letters(stop_ids=stops), prompts=PROMPTS, sampling=BEAMS) == together


def test_a_stop_token_ends_an_answer_and_is_no_part_of_it_even_where_the_decoder_starts_with_it(pair):
    model, start = pair
    plain = generate(model, Letters(), prompts=PROMPTS, sampling=GREEDY)
    stops = frozenset({start, plain[0].ids[3], plain[1].ids[2]})
    answers = generate(model, Letters(stop_ids=stops), prompts=PROMPTS, sampling=GREEDY)
    for answer, whole in zip(answers, plain, strict=True):
        end = next((place for place, token in enumerate(whole.ids) if token in stops), 8)
        assert answer.ids == whole.ids[:end] and answer.is_complete == (end < 8)
    assert sum(answer.is_complete for answer in answers) >= 2


def test_streamed_pieces_are_the_answer_of_an_encoder_decoder(pair):
    model, _ = pair
    pieces: list[str] = []
    answer = stream(model, Letters(), prompt=PROMPTS[0], sampling=GREEDY, on_text=pieces.append)
    assert "".join(pieces) == answer.text and len(pieces) == 8
    assert [answer] == generate(model, Letters(), prompts=PROMPTS[:1], sampling=GREEDY)


def test_the_models_own_generation_config_has_no_say(pair):
    model, _ = pair
    expected = generate(model, Letters(), prompts=PROMPTS, sampling=BEAMS)
    own = model.generation_config
    own.num_beams, own.length_penalty, own.early_stopping, own.min_length = 2, 9.0, True, 30
    own.forced_bos_token_id, own.no_repeat_ngram_size, own.decoder_start_token_id = 7, 1, 9
    assert generate(model, Letters(), prompts=PROMPTS, sampling=BEAMS) == expected
    assert model.generation_config is own


def test_positions_limit_source_and_answer_each_by_itself():
    model = tiny_bart()
    answers = generate(model, Letters(), prompts=[[7] * 64, [8] * 3], sampling=Sampling(80), max_positions=64)
    assert [len(answer.ids) for answer in answers] == [64, 64]
    with pytest.raises(FledgeError, match="positions for 64"):
        generate(model, Letters(), prompts=[[7] * 65], sampling=GREEDY, max_positions=64)


@pytest.fixture
def causal(tmp_path) -> PreTrainedModel:
    return AutoModelForCausalLM.from_pretrained(tiny_folder("llama", tmp_path)).eval()


def test_one_beam_is_greedy(causal, pair):
    for model in (causal, pair[0]):
        greedy = generate(model, Letters(), prompts=PROMPTS, sampling=GREEDY)
        assert generate(model, Letters(), prompts=PROMPTS, sampling=Sampling(8, num_beams=1)) == greedy


def test_beams_find_answers_at_least_as_likely_as_greedy(causal, pair):
    found = 0
    for model, start in ((causal, 5), pair):
        # a causal model gets its prompt's last token where a decoder gets its start
        prompts = PROMPTS if model.config.is_encoder_decoder else [[*prompt, start] for prompt in PROMPTS]
        one, four = (generate(model, Letters(), prompts=prompts, sampling=chosen) for chosen in (GREEDY, BEAMS))
        for prompt, greedy, searched in zip(PROMPTS, one, four, strict=True):
            likely = [log_probability(model, start, prompt, answer.ids) for answer in (greedy, searched)]
            assert likely[1] >= likely[0] - 1e-4
            found += likely[1] > likely[0] + 1e-4
    assert found > 0


def test_beams_wide_enough_find_the_likeliest_of_all_answers(pair):
    model, start = pair
    (answer,) = generate(model, Letters(), prompts=PROMPTS[:1], sampling=Sampling(2, num_beams=320))
    first = torch.log_softmax(whole_logits(model, PROMPTS[0], [start]).double()[-1], dim=-1)
    best = max(
        (float(first[token] + second.max()), (token, int(second.argmax())))
        for token in range(320)
        for second in [torch.log_softmax(whole_logits(model, PROMPTS[0], [start, token]).double()[-1], dim=-1)]
    )
    assert answer.ids == best[1]


def test_beams_that_cannot_be_are_refused(causal):
    with pytest.raises(FledgeError, match="num_beams is 0"):
        Sampling(num_beams=0)
    with pytest.raises(FledgeError, match="beams are not drawn"):
        Sampling(num_beams=2, temperature=1.0)
    with pytest.raises(FledgeError, match="beams cannot be streamed"):
        stream(causal, Letters(), prompt=[5], sampling=BEAMS, on_text=str)


def test_progress_counts_every_answer(causal, monkeypatch):
    monkeypatch.setattr(batching, "MAX_ROWS", 3)
    told: list[tuple[int, int]] = []
    generate(causal, Letters(), prompts=PROMPTS, sampling=GREEDY, on_answers=lambda *now: told.append(now))
    assert told == [(3, 4), (4, 4)]


def test_a_batch_too_large_for_a_gpu_is_halved_until_it_fits_and_the_answers_stay_the_same(causal, monkeypatch):
    prompts = [[5 + n, 9] for n in range(16)]
    expected = generate(causal, Letters(), prompts=prompts, sampling=GREEDY)
    sizes, real = [], module._run

    def short_of_memory(model, vocabulary, some, sampling, max_positions, streamer=None):
        sizes.append(len(some))
        if len(some) > 3:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return real(model, vocabulary, some, sampling, max_positions, streamer)

    monkeypatch.setattr(module, "_run", short_of_memory)
    assert generate(causal, Letters(), prompts=prompts, sampling=GREEDY) == expected
    assert sizes == [16, 8, 4, *itertools.repeat(2, 8)]


def test_a_prompt_too_large_for_memory_even_alone_is_an_error_with_a_cure(causal, monkeypatch):
    def short_of_memory(*arguments):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(module, "_run", short_of_memory)
    with pytest.raises(FledgeError, match=r"a prompt of 9 tokens, even alone(.|\n)*lower max_new_tokens"):
        generate(causal, Letters(), prompts=PROMPTS, sampling=GREEDY)
