"""Generation says what the model says: batches change nothing, the base's own settings have no say, seeds decide."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer, decoders, models
from transformers import AutoModelForCausalLM, PreTrainedModel

from fledge.errors import FledgeError
from fledge.evaluation import batching
from fledge.evaluation import generate as module
from fledge.evaluation.generate import Sampling, generate, stream
from tests.tiny_models import ARCHITECTURES, VOCABULARY, tiny_folder

PROMPTS = ((5, 9, 33, 210, 77, 12, 8), (100,), (319, 3, 3, 250), (7, 8, 9, 10, 11, 12, 13, 14, 15))
GREEDY = Sampling(max_new_tokens=8)


def words(*texts: str) -> Tokenizer:
    """A tokenizer that has these tokens, in this order, and puts nothing between them."""
    return Tokenizer(models.WordLevel({text: token for token, text in enumerate(texts)}, unk_token=texts[0]))


@dataclass
class Letters:
    """A vocabulary whose text is the ids themselves."""

    pad_token_id: int = 2
    stop_ids: frozenset[int] = field(default_factory=frozenset)
    unk_token_id: int | None = None

    @cached_property
    def backend(self) -> Tokenizer:
        made = words(*(f"{token}," for token in range(VOCABULARY)))
        made.decoder = decoders.Fuse()
        return made

    def decode(self, ids: Sequence[int]) -> str:
        return self.backend.decode(list(ids))

    decode_whole = decode


class Halves(Letters):
    """A vocabulary where an id is the first half of a character, or the second, as byte-level tokenizers have it."""

    @cached_property
    def backend(self) -> Tokenizer:
        made = words(*(f"{token}Ã" if token % 2 else f"©{token}" for token in range(VOCABULARY)))
        made.decoder = decoders.ByteLevel()
        return made


def load(name: str, folder: Path) -> PreTrainedModel:
    model = AutoModelForCausalLM.from_pretrained(tiny_folder(name, folder / name)).eval()
    model.config.use_cache = False
    return model


def by_hand(model: PreTrainedModel, prompt: Sequence[int], count: int) -> tuple[int, ...]:
    """Greedy ids from whole forward passes, one for each token."""
    ids = torch.tensor([list(prompt)])
    with torch.no_grad():
        for _ in range(count):
            ids = torch.cat([ids, model(input_ids=ids, use_cache=False).logits[:, -1].argmax(-1)[None]], dim=1)
    return tuple(ids[0, len(prompt) :].tolist())


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_greedy_answers_of_a_batch_are_those_of_whole_forward_passes_of_each_prompt(name, tmp_path):
    model = load(name, tmp_path)
    answers = generate(model, Letters(), prompts=PROMPTS, sampling=GREEDY)
    assert [answer.ids for answer in answers] == [by_hand(model, prompt, 8) for prompt in PROMPTS]
    assert len({answer.ids for answer in answers}) == len(PROMPTS)


def test_batches_are_split_by_rows_and_by_memory_and_change_nothing(tmp_path, monkeypatch):
    model = load("llama", tmp_path)
    together = generate(model, Letters(), prompts=PROMPTS, sampling=GREEDY)
    for rows, memory in ((1, 1e9), (3, 1e9), (64, 1.0)):
        monkeypatch.setattr(batching, "MAX_ROWS", rows)
        monkeypatch.setattr(module, "bytes_at_hand", lambda device, memory=memory: memory)
        assert generate(model, Letters(), prompts=PROMPTS, sampling=GREEDY) == together


def test_the_bases_own_generation_config_has_no_say_and_is_left_as_it_was(tmp_path):
    model = load("llama", tmp_path)
    expected = generate(model, Letters(), prompts=PROMPTS, sampling=GREEDY)
    own = model.generation_config
    own.do_sample, own.temperature, own.top_k, own.repetition_penalty = True, 3.0, 5, 9.0
    own.suppress_tokens, own.no_repeat_ngram_size, own.min_new_tokens = [expected[0].ids[0]], 1, 30
    own.eos_token_id = [expected[0].ids[1]]
    assert generate(model, Letters(), prompts=PROMPTS, sampling=GREEDY) == expected
    assert model.generation_config is own and own.temperature == 3.0


def test_it_leaves_modes_cache_setting_and_random_numbers_alone(tmp_path):
    model = load("gpt2", tmp_path)
    model.train()
    model.transformer.h[0].eval()
    modes = [part.training for part in model.modules()]
    torch.manual_seed(1)
    expected = torch.rand(1)
    torch.manual_seed(1)
    generate(model, Letters(), prompts=PROMPTS, sampling=Sampling(4, temperature=1.0))
    assert torch.equal(torch.rand(1), expected)
    assert [part.training for part in model.modules()] == modes
    assert model.config.use_cache is False


def test_any_stop_token_ends_an_answer_and_is_no_part_of_it(tmp_path):
    model = load("llama", tmp_path)
    plain = generate(model, Letters(), prompts=PROMPTS, sampling=GREEDY)
    assert not any(answer.is_complete for answer in plain)
    stops = frozenset({plain[0].ids[3], plain[1].ids[2]})
    answers = generate(model, Letters(stop_ids=stops), prompts=PROMPTS, sampling=GREEDY)
    for answer, whole in zip(answers, plain, strict=True):
        end = next((place for place, token in enumerate(whole.ids) if token in stops), 8)
        assert answer.ids == whole.ids[:end] and answer.is_complete == (end < 8)
        assert answer.text == Letters().decode(answer.ids)
    assert sum(answer.is_complete for answer in answers) >= 2


def test_the_seed_decides_what_is_drawn(tmp_path):
    model = load("llama", tmp_path)
    drawn = [
        generate(model, Letters(), prompts=PROMPTS, sampling=Sampling(8, temperature=1.5, seed=seed))
        for seed in (1, 1, 2)
    ]
    assert drawn[0] == drawn[1] != drawn[2]


def test_a_tiny_top_p_and_a_tiny_temperature_are_greedy(tmp_path):
    model = load("llama", tmp_path)
    expected = generate(model, Letters(), prompts=PROMPTS, sampling=GREEDY)
    assert generate(model, Letters(), prompts=PROMPTS, sampling=Sampling(8, temperature=1.0, top_p=1e-6)) == expected
    assert generate(model, Letters(), prompts=PROMPTS, sampling=Sampling(8, temperature=1e-4)) == expected


def test_drawn_tokens_follow_the_models_probabilities_and_top_k_is_off(tmp_path):
    model = load("llama", tmp_path)
    with torch.no_grad():
        expected = torch.softmax(model(torch.tensor([[5, 9]])).logits[0, -1] / 0.7, dim=-1)
    prompts = [(5, 9)] * 3000
    counts = torch.zeros(320)
    for answer in generate(model, Letters(), prompts=prompts, sampling=Sampling(1, temperature=0.7, seed=3)):
        counts[answer.ids[0]] += 1
    assert (counts > 0).sum() > 100
    assert (counts / 3000 - expected).abs().max() < 0.03


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_streamed_pieces_put_together_are_the_answer(temperature, tmp_path):
    model, pieces = load("bloom", tmp_path), []
    sampling = Sampling(8, temperature=temperature, seed=4)
    answer = stream(model, Letters(), prompt=PROMPTS[0], sampling=sampling, on_text=pieces.append)
    assert len(pieces) == 8 and "".join(pieces) == answer.text
    assert [answer] == generate(model, Letters(), prompts=PROMPTS[:1], sampling=sampling)


def test_a_stop_token_is_not_streamed(tmp_path):
    model, pieces = load("bloom", tmp_path), []
    stop = generate(model, Letters(), prompts=PROMPTS[:1], sampling=GREEDY)[0].ids[2]
    answer = stream(
        model, Letters(stop_ids=frozenset({stop})), prompt=PROMPTS[0], sampling=GREEDY, on_text=pieces.append
    )
    assert answer.is_complete and len(pieces) == len(answer.ids) <= 2 and "".join(pieces) == answer.text


def test_half_a_character_is_held_back_until_it_is_known_what_it_is(tmp_path):
    pieces: list[str] = []
    vocabulary, model = Halves(), load("llama", tmp_path)
    answer = stream(model, vocabulary, prompt=PROMPTS[0], sampling=Sampling(40), on_text=pieces.append)
    assert "".join(pieces) == answer.text and "é" in answer.text and "\ufffd" in answer.text
    told = ["".join(pieces[:count]) for count in range(len(pieces) + 1)]
    assert all(vocabulary.decode(answer.ids[:count]).rstrip("\ufffd") in told for count in range(41))


def test_an_interrupted_stream_leaves_the_model_fit_for_use(tmp_path):
    model = load("llama", tmp_path)
    expected, own = generate(model, Letters(), prompts=PROMPTS, sampling=GREEDY), model.generation_config

    def interrupt(text: str) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stream(model, Letters(), prompt=PROMPTS[0], sampling=GREEDY, on_text=interrupt)
    assert model.generation_config is own
    assert generate(model, Letters(), prompts=PROMPTS, sampling=GREEDY) == expected


def test_a_position_table_is_never_exceeded_and_takes_nothing_from_shorter_prompts(tmp_path):
    model = load("gpt2", tmp_path)
    prompts = [[7] * 509, [8] * 3, [9] * 500]
    answers = generate(model, Letters(), prompts=prompts, sampling=Sampling(6), max_positions=512)
    assert [len(answer.ids) for answer in answers] == [3, 6, 6]
    assert answers[1].ids == by_hand(model, prompts[1], 6)
    with pytest.raises(FledgeError, match="positions for 512"):
        generate(model, Letters(), prompts=[[7] * 512], sampling=Sampling(6), max_positions=512)


@pytest.mark.parametrize(
    ("options", "name"),
    [
        ({"max_new_tokens": 0}, "max_new_tokens"),
        ({"temperature": -1.0}, "temperature"),
        ({"temperature": float("nan")}, "temperature"),
        ({"temperature": float("inf")}, "temperature"),
        ({"top_p": 0.0}, "top_p"),
        ({"top_p": 1.5}, "top_p"),
    ],
)
def test_settings_out_of_range_are_refused_by_name(options, name):
    with pytest.raises(FledgeError, match=name):
        Sampling(**options)


def test_a_prompt_without_tokens_is_refused(tmp_path):
    with pytest.raises(FledgeError, match="no tokens"):
        generate(load("llama", tmp_path), Letters(), prompts=[[]], sampling=GREEDY)
    with pytest.raises(FledgeError, match="prompt 2: the prompt has no tokens"):
        generate(load("llama", tmp_path), Letters(), prompts=[[5], []], sampling=GREEDY)


def test_greedy_text_of_a_real_model_is_its_authors_own(shared):
    folder = shared / "data/weights/stories260K"
    reference = json.loads((folder / "reference_greedy.json").read_text())
    model = AutoModelForCausalLM.from_pretrained(folder / "hf", dtype=torch.float32).eval()
    start, whole = reference["prompt_ids"], reference["greedy_ids"]
    answers = generate(model, Letters(), prompts=[start, whole[:20]], sampling=Sampling(len(whole) - 20))
    assert len(whole) > 100
    assert [*start, *answers[0].ids] == whole[: len(start) + len(whole) - 20]
    assert [*whole[:20], *answers[1].ids] == whole
