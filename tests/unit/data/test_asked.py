"""Prompts as they are asked, answers as a tokenizer writes them, and rows that become several: stored and counted."""

import json
from pathlib import Path

import pytest
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers

from fledge.config.data import DataConfig
from fledge.config.model import ModelConfig
from fledge.data.formats.chat import APART
from fledge.data.ledger import PART_DROPPED
from fledge.data.pipeline import PreparedData, prepare_training
from fledge.data.tokenize import LOSSY, OTHER_TOKENS, SHARED_TOKEN
from fledge.errors import DataError
from fledge.models.load_tokenizer import load_tokenizer
from tests.tiny_models import tiny_folder
from tests.unit.data.tiny import CHATML, Tiny, gpt_like, t5_like

EVERY_ANSWER_APART = (
    "{% for m in messages %}{{ '<|im_start|>' + m.role + '\\n' + m.content }}"
    "{{ '</s>' if loop.last and m.role == 'assistant' else '<|im_end|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
"""The last answer ends with another token than those before it."""


def prepare(folder: Path, rows: list[dict], tokenizer: Tiny, *, form: str = "completion", **options) -> PreparedData:
    path = folder / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    data = DataConfig.model_validate({"train": {"path": str(path), "format": form}, **options})
    return prepare_training(data, tokenizer, seed=0, progress=lambda done, total: None)


def pairs(*texts: tuple[str, str]) -> list[dict]:
    return [{"prompt": prompt, "completion": completion} for prompt, completion in texts]


def merging(*merges: tuple[str, str]) -> Tiny:
    """A BPE of letters with a few merges and no boundary between words."""
    letters = {letter: number for number, letter in enumerate(["</s>", *"abcdefgh "])}
    vocabulary = letters | {one + other: len(letters) + number for number, (one, other) in enumerate(merges)}
    backend = Tokenizer(models.BPE(vocab=vocabulary, merges=list(merges)))
    backend.add_special_tokens(["</s>"])
    backend.decoder = decoders.Fuse()
    return Tiny(backend, bos_token=None, puts_bos=False)


def test_a_token_that_prompt_and_answer_share_is_trained_counted_and_not_asked(tmp_path):
    tokenizer = merging(("b", "c"))
    prepared = prepare(tmp_path, pairs(("ab", "cd"), ("ab", "dc")), tokenizer)
    entry = prepared.ledger.sources["train"][0]
    assert entry.notes == {SHARED_TOKEN: 1} and entry.note_examples == {SHARED_TOKEN: ("rows.jsonl:1",)}
    store = prepared.train
    assert tokenizer.text(store.row(0).input_ids[store.row(0).trained]) == "bcd</s>"
    assert [tokenizer.text(store.prompt_ids(index)) for index in (0, 1)] == ["ab", "ab"]
    assert any("1 rows: prompt and answer share a token" in line for line in prepared.ledger.notices())


def test_a_prompt_whose_tokens_differ_when_it_is_asked_alone_is_counted_and_asked_as_alone(tmp_path):
    backend = merging(("a", " ")).backend
    backend.pre_tokenizer = pre_tokenizers.Split(Regex(" +(?=c)"), behavior="isolated")  # looks at what follows
    tokenizer = Tiny(backend, bos_token=None, puts_bos=False)
    prepared = prepare(tmp_path, pairs(("ba ", "cd"), ("ba ", "dd")), tokenizer)
    assert prepared.ledger.sources["train"][0].notes == {OTHER_TOKENS: 1}
    first = prepared.train.row(0)
    assert len(first.input_ids) - int(first.trained.sum()) == 3  # b, a and the space in the row
    for index in (0, 1):
        assert prepared.train.prompt_ids(index) == backend.encode("ba ").ids and len(backend.encode("ba ").ids) == 2


def lossy(make=gpt_like) -> Tiny:
    """A tokenizer of a few letters that writes everything else as <unk>, and folds white space."""
    vocabulary = {piece: number for number, piece in enumerate(["<unk>", "<s>", "</s>", *"abcdefgh "])}
    backend = Tokenizer(models.BPE(vocab=vocabulary, merges=[], unk_token="<unk>"))
    backend.normalizer = normalizers.Replace("\n", " ")
    backend.decoder = decoders.Fuse()
    backend.add_special_tokens(["<s>", "</s>"])
    like = make()
    return Tiny(
        backend,
        puts_bos=like.puts_bos,
        puts_eos=like.puts_eos,
        decoder_start_id=like.decoder_start_id,
        is_lossless=False,
    )


@pytest.mark.parametrize("make", [gpt_like, t5_like])
def test_answers_that_the_tokenizer_cannot_write_are_counted_and_marked(make, tmp_path):
    rows = pairs(("a", "bed"), ("a", "be{d}"), ("a", "b\nd"), ("a", " bed "), ("a{", "bed"))
    prepared = prepare(tmp_path, rows, lossy(make))
    entry = prepared.ledger.sources["train"][0]
    assert entry.notes == {LOSSY: 2} and entry.note_examples == {LOSSY: ("rows.jsonl:2", "rows.jsonl:3")}
    assert [prepared.train.is_lossy(index) for index in range(5)] == [False, True, True, False, False]


def test_whether_a_tokenizer_can_write_everything_is_found_by_trying(tmp_path, shared):
    def can(folder: Path) -> bool:
        data = DataConfig.model_validate({"train": {"path": "x.jsonl", "format": "completion"}})
        return load_tokenizer(ModelConfig(name_or_path=str(folder)), data).is_lossless

    found = {}
    for name in ("gpt2", "falcon", "t5"):
        folder = tiny_folder("t5" if name == "t5" else "llama", tmp_path / name)
        source = shared / "data" / "tokenizers" / name
        (folder / "tokenizer.json").write_text((source / "tokenizer.json").read_text())
        found[name] = can(folder)
    assert found == {"gpt2": True, "falcon": True, "t5": False}


def conversation(*lengths: int) -> dict:
    messages = []
    for length in lengths:
        messages += [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Owl. " * length}]
    return {"messages": messages}


def test_a_conversation_of_several_rows_is_one_row_in_the_ledger_and_its_tokens_add_up(tmp_path):
    tokenizer = gpt_like(EVERY_ANSWER_APART)
    prepared = prepare(tmp_path, [conversation(1, 2, 3), conversation(4)], tokenizer, form="chat")
    entry = prepared.ledger.sources["train"][0]
    assert (entry.rows_read, entry.rows_kept, entry.pieces, len(prepared.train)) == (2, 2, 4, 4)
    assert entry.notes == {APART: 1} and prepared.train.parents.tolist() == [0, 0, 0, 1]
    assert entry.tokens_trained == int(prepared.train.supervised.sum())
    assert entry.tokens_read == entry.tokens_trained + entry.tokens_masked == int(prepared.train.lengths.sum())
    answers = [tokenizer.text(prepared.train.answer_ids(index)).strip() for index in range(4)]
    assert answers == [" ".join(["Owl."] * length) for length in (1, 2, 3, 4)]


def test_one_row_of_a_conversation_that_is_too_long_is_counted_and_the_others_are_kept(tmp_path):
    tokenizer = gpt_like(EVERY_ANSWER_APART)
    prepared = prepare(tmp_path, [conversation(1, 60)], tokenizer, form="chat", max_length=60)
    entry = prepared.ledger.sources["train"][0]
    assert (entry.rows_read, entry.rows_kept, entry.pieces) == (1, 1, 1)
    assert entry.notes[PART_DROPPED.format(reason="overlong")] == 1 and not entry.rows_dropped
    dropped = sum(entry.tokens_dropped.values())
    assert entry.tokens_read == entry.tokens_trained + entry.tokens_masked + dropped and dropped > 60
    with pytest.raises(DataError, match=r"none of the rows can be used: 1 overlong"):
        prepare(tmp_path, [conversation(60, 60)], tokenizer, form="chat", max_length=60)


def test_the_system_text_that_all_rows_share_is_in_the_ledger(tmp_path):
    rows = [conversation(1) | {"system": "Be brief."} for _ in range(2)]
    for extra, shared_text in ([], "Be brief."), ([conversation(1)], ""), ([conversation(1) | {"system": "No."}], ""):
        prepared = prepare(tmp_path, [*rows, *extra], gpt_like(CHATML), form="chat")
        assert prepared.ledger.as_json()["sources"]["train"][0]["system"] == shared_text
