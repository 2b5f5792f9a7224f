"""A run keeps the tokenizer that trained, and so do its exports; another one is refused by each verb."""

import json
import shutil
from pathlib import Path

import gguf
import pytest
from tokenizers import Tokenizer as Backend
from transformers import AutoTokenizer

from fledge.cli.main import run as fledge
from fledge.commands.chat import chat
from fledge.commands.evaluate import evaluate
from fledge.commands.export import export
from fledge.commands.generate import Sampling, generate
from fledge.commands.open_run import open_run
from fledge.commands.opening import Opening
from fledge.commands.train import train
from fledge.config.data import DataConfig
from fledge.config.model import ModelConfig
from fledge.errors import FledgeError, ModelError, RunError
from fledge.models import companions, saved_words
from fledge.models.load_tokenizer import load_tokenizer
from fledge.models.tokenizer import Tokenizer
from tests.pieces import HARD, pieces_folder, with_own_code
from tests.runs import load, recipe_dict
from tests.unit.conftest import chat_rows

SHORT = Sampling(max_new_tokens=2)


def trained(folder: Path, base: Path, **changes: object) -> Path:
    rows = chat_rows(folder / "rows.jsonl")
    source = {"path": str(rows), "format": "chat"}
    settings = {"data__chat_template": "chatml", "train__max_steps": 2, "data__validation": source} | changes
    recipe = recipe_dict(base, rows, folder / "run", **settings)
    recipe["data"]["train"]["format"] = "chat"
    train(load(folder, recipe))
    return folder / "run"


@pytest.fixture(scope="module")
def legacy(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("legacy")
    return trained(folder, pieces_folder("llama", folder / "base", legacy=True))


@pytest.fixture(scope="module")
def own(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("own")
    base = with_own_code(pieces_folder("llama", folder / "base"))
    return trained(folder, base, model__trust_remote_code=True)


@pytest.fixture
def copy(legacy, tmp_path) -> Path:
    return shutil.copytree(legacy, tmp_path / "run")


def of_base(run: Path, *, trusted: bool = False) -> Tokenizer:
    data = DataConfig.model_validate({"train": {"path": "/rows.jsonl", "format": "chat"}, "chat_template": "chatml"})
    return load_tokenizer(ModelConfig(name_or_path=str(run.parent / "base"), trust_remote_code=trusted), data)


def ids_of(folder: Path, *, trusted: bool = False) -> list[list[int]]:
    """As plain transformers reads it."""
    hf = AutoTokenizer.from_pretrained(folder, trust_remote_code=trusted)
    return [hf(text, add_special_tokens=False)["input_ids"] for text in HARD]


def test_a_legacy_tokenizer_has_its_ids_in_the_run_and_in_each_export(legacy, tmp_path):
    expected = [one.ids for one in of_base(legacy).encode_batch(HARD)]
    assert ids_of(legacy / "adapter") == expected
    assert [one.ids for one in open_run(legacy).tokenizer.encode_batch(HARD)] == expected
    for to in ("adapter", "hf"):
        made = export(legacy, tmp_path / to, to=to)
        assert ids_of(tmp_path / to) == expected
        assert made.certificate["checks"]["tokenizer"]["texts"] > 30, "the rows' own texts are among them"
        assert made.notices == ()


def test_a_legacy_tokenizer_has_its_ids_in_a_gguf_file(legacy, tmp_path):
    """llama.cpp puts a space before each piece between special tokens, as `legacy` does."""
    made = export(legacy, tmp_path / "gguf", to="gguf")
    fields = gguf.GGUFReader(next((tmp_path / "gguf").glob("*.gguf"))).fields
    tokenizer = of_base(legacy)
    assert bool(fields["tokenizer.ggml.add_space_prefix"].contents()) is True
    assert fields["tokenizer.ggml.tokens"].contents()[: tokenizer.size] == tokenizer.hf.convert_ids_to_tokens(
        range(tokenizer.size)
    )
    spaces = {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}
    prefix = {"type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": "▁"}, spaces]}
    rules = json.loads(tokenizer.rules) | {"normalizer": prefix, "pre_tokenizer": None}
    texts = [text for text in HARD if not text.startswith((" ", "▁")) and "> " not in text]
    there = Backend.from_str(json.dumps(rules)).encode_batch(texts, add_special_tokens=False)
    assert [one.ids for one in there] == [one.ids for one in tokenizer.encode_batch(texts)]
    assert not any("of the training rows" in remark for remark in made.certificate["remarks"])


@pytest.mark.parametrize("what", ["rules", "template", "special tokens", "class"])
def test_another_tokenizer_fails_every_verb_that_opens_the_run(what, copy, tmp_path):
    adapter = copy / "adapter"
    if what == "rules":
        rules = json.loads((adapter / "tokenizer.json").read_text())
        rules["pre_tokenizer"]["prepend_scheme"] = "first"
        (adapter / "tokenizer.json").write_text(json.dumps(rules))
    elif what == "template":
        path = adapter / "chat_template.jinja"
        path.write_text(path.read_text().replace("<|im_start|>", "<s>"))
    else:
        path = adapter / "tokenizer_config.json"
        change = {"eos_token": "<s>"} if what == "special tokens" else {"tokenizer_class": "LlamaTokenizer"}
        path.write_text(json.dumps(json.loads(path.read_text()) | change))
    for verb in (
        lambda: evaluate(copy),
        lambda: generate(copy, "ka", sampling=SHORT),
        lambda: chat(copy),
        lambda: export(copy, tmp_path / "out", to="adapter"),
    ):
        with pytest.raises(RunError, match=r"(?s)the tokenizer beside the adapter.*put back the tokenizer"):
            verb()
    assert not (tmp_path / "out").exists()


def test_what_reads_text_otherwise_is_told_in_plain_words(copy):
    path = copy / "adapter/tokenizer_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"tokenizer_class": "LlamaTokenizer"}))
    with pytest.raises(RunError) as caught:
        open_run(copy)
    assert caught.value.problems[0].what == (
        "the tokenizer beside the adapter does not read text as it did in the training: its tokenizer.json is the "
        "same, but a file that goes with it, such as tokenizer_config.json, has changed"
    )
    assert saved_words.said("a b", ids=[4, 5, 6], others=[4, 7]) == (
        "'a b' is split into other tokens: its list of token ids has from id 1 on [4, 5, 6] in the training, "
        "but [4, 7] now"
    )


def test_a_run_with_a_manifest_of_the_first_kind_opens_with_a_word_where_it_cannot_be_judged(copy, capsys):
    path = copy / "manifest.json"
    manifest = json.loads(path.read_text())
    for value, expected in ((open_run(copy).tokenizer.first_identity, 0), ("0" * 64, 1)):
        manifest["hashes"]["tokenizer_and_template"] = value
        path.write_text(json.dumps(manifest))
        assert len(open_run(copy).notices) == expected
    assert fledge(["generate", str(copy), "--prompt", "ka", "--max-new-tokens", "2"]) == 0
    assert "note: this run was made by an older Fledge" in capsys.readouterr().err
    assert "notices" in evaluate(copy).as_json()


def test_a_tokenizer_that_other_versions_load_otherwise_is_said_and_not_refused(copy):
    config, path = copy / "adapter/tokenizer_config.json", copy / "manifest.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"tokenizer_class": "LlamaTokenizer"}))
    manifest = json.loads(path.read_text())
    manifest["versions"]["transformers"] = "5.0.0"
    path.write_text(json.dumps(manifest))
    assert "saved by transformers 5.0.0" in open_run(copy).notices[0]


def test_a_save_that_changes_the_tokenizer_fails_before_the_first_step(tmp_path, monkeypatch):
    base = pieces_folder("llama", tmp_path / "base", legacy=True)
    for place in (saved_words, companions):
        monkeypatch.setattr(place, "save_tokenizer", lambda tokenizer, folder: tokenizer.hf.save_pretrained(folder))
    with pytest.raises(
        ModelError, match=r"(?s)once it is saved and loaded again: '<\|im_start\|>user.* in the training"
    ):
        trained(tmp_path, base)
    assert not (tmp_path / "run/checkpoints").exists()


def test_an_export_whose_tokenizer_reads_the_rows_otherwise_fails(legacy, tmp_path, monkeypatch):
    real = companions.save_for_others

    def spoilt(tokenizer: Tokenizer, folder: Path) -> None:
        real(tokenizer, folder)
        rules = json.loads((folder / "tokenizer.json").read_text())
        rules["pre_tokenizer"]["prepend_scheme"] = "first"
        (folder / "tokenizer.json").write_text(json.dumps(rules))

    monkeypatch.setattr(companions, "save_for_others", spoilt)
    with pytest.raises(
        FledgeError, match=r"the exported tokenizer reads \d+ of \d+ texts otherwise: .*in the training"
    ):
        export(legacy, tmp_path / "out", to="adapter")


def test_a_run_with_code_of_its_own_is_opened_by_who_allows_it(own, tmp_path, capsys):
    assert "--trust-remote-code" not in open_run(own, trust_remote_code=True).notices
    arguments = {
        "evaluate": [str(own)],
        "generate": [str(own), "--prompt", "ka", "--max-new-tokens", "2"],
        "chat": [str(own)],
        "export": [str(own), str(tmp_path / "no")],
        "push": [str(own), "ada/no"],
        "train": [str(own / "recipe.yaml")],
    }
    for verb, rest in arguments.items():
        assert fledge([verb, *rest]) == 2
        assert "give --trust-remote-code" in capsys.readouterr().err, verb
    for verb in ("evaluate", "generate", "train"):
        assert fledge([verb, *arguments[verb], "--trust-remote-code"]) == 0, verb
    assert fledge(["train", str(own / "recipe.yaml"), "model.trust_remote_code=true"]) == 0
    assert chat(own, sampling=SHORT, opening=Opening(trust_remote_code=True)).say("ka", on_text=lambda text: None)


def test_a_run_with_code_of_its_own_goes_on_by_who_allows_it(own, tmp_path, capsys):
    run = shutil.copytree(own, tmp_path / "run")
    shutil.rmtree(run / "adapter")
    (run / "summary.json").unlink()
    with pytest.raises(RunError, match=r"recipe\.yaml output\.dir=\S+ --trust-remote-code` goes on with it"):
        open_run(run, trust_remote_code=True)
    command = ["train", str(run / "recipe.yaml"), f"output.dir={run}"]
    assert fledge(command) == 2
    assert "give --trust-remote-code" in capsys.readouterr().err
    assert fledge([*command, "--trust-remote-code"]) == 0
    assert open_run(run, trust_remote_code=True).adapter_sha256


def test_a_run_with_code_of_its_own_has_its_ids_in_each_export_and_no_gguf(own, tmp_path):
    expected = [one.ids for one in of_base(own, trusted=True).encode_batch(HARD)]
    assert ids_of(own.parent / "base", trusted=True) == expected
    assert ids_of(own / "adapter", trusted=True) == expected
    for to in ("adapter", "hf"):
        export(own, tmp_path / to, to=to, opening=Opening(trust_remote_code=True))
        assert ids_of(tmp_path / to, trusted=True) == expected
        assert (tmp_path / to / "tokenization_own.py").is_file()
    with pytest.raises(ModelError, match="code of its own, and a GGUF file holds no code"):
        export(own, tmp_path / "gguf", to="gguf", opening=Opening(trust_remote_code=True))


def test_consent_where_none_is_needed_is_refused(copy):
    with pytest.raises(RunError, match=r"--trust-remote-code: has no effect"):
        open_run(copy, trust_remote_code=True)


def test_code_that_was_laid_beside_an_adapter_does_not_run(copy):
    with_own_code(copy / "adapter", "raise SystemExit('it ran')\n")
    with pytest.raises(RunError, match="it names code, which this run was trained without"):
        open_run(copy)


def test_ordinary_new_tokens_are_trained_and_stay_in_answers(tmp_path):
    base = pieces_folder("llama", tmp_path / "base")
    run = trained(tmp_path, base, data__new_tokens=["vudo", "lomi"], data__new_special_tokens=["<x>"])
    opened = open_run(run)
    config = json.loads((run / "adapter/adapter_config.json").read_text())
    rows = config["trainable_token_indices"].values()
    assert {len(each) for each in rows} == {2 + 1 + 2}, "chatml's, the special one and the ordinary ones"
    ids = opened.tokenizer.hf.convert_tokens_to_ids(["vudo", "lomi"])
    assert opened.tokenizer.decode([ids[0], ids[1]]).replace(" ", "") == "vudolomi"
    export(run, tmp_path / "gguf", to="gguf")
    fields = gguf.GGUFReader(next((tmp_path / "gguf").glob("*.gguf"))).fields
    kinds = fields["tokenizer.ggml.token_type"].contents()
    assert [kinds[index] for index in ids] == [gguf.TokenType.USER_DEFINED] * 2
    assert kinds[opened.tokenizer.special_tokens["<x>"]] == gguf.TokenType.CONTROL
