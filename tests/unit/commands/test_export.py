"""What is exported is what was trained, or nothing is there."""

import gc
import hashlib
import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from fledge.adapters import merge as merge_of_adapters
from fledge.cli.main import run as fledge
from fledge.commands.export import Extras, export
from fledge.commands.opening import Opening
from fledge.errors import ModelError, ProofError, RunError
from fledge.exporting import folder as exporting
from fledge.exporting import merged, outside, trained
from fledge.exporting.targets import adapter as adapter_target
from fledge.exporting.targets import gguf as gguf_target
from fledge.exporting.targets import hf as hf_target
from fledge.rundir import RunDir
from tests.unit.exporting.drafts import GGUF_SPOILS, SPOILS, num_models

KINDS = ("adapter", "hf", "gguf")
TOKEN_ROWS = (
    "this adapter has rows for tokens (trainable_token_indices), which vLLM does not load from an adapter: "
    "for servers write the merged model, --to hf or --to gguf"
)


@pytest.fixture
def run(trained_run) -> Path:
    return trained_run("llama")


@pytest.fixture
def chat_run(trained_run) -> Path:
    return trained_run("llama", fmt="chat", data__chat_template="chatml")


_REMEMBERED: dict[str, list[outside.Outside]] = {}


@pytest.fixture
def remembered(monkeypatch) -> None:
    """A fresh process is asked once for all the tests that are about the folder and not about what is in it."""
    ask = exporting.ask_outside

    def recall(cases):
        key = str([replace(case, folder="") for case in cases])
        if key not in _REMEMBERED:
            _REMEMBERED[key] = ask(cases)
        return _REMEMBERED[key]

    monkeypatch.setattr(exporting, "ask_outside", recall)


@pytest.mark.parametrize("to", KINDS)
def test_a_certificate_says_what_was_compared_and_names_every_file(to, chat_run, tmp_path, monkeypatch):
    out = tmp_path / "out"
    spawn, held = outside.subprocess.run, []
    monkeypatch.setattr(outside.subprocess, "run", lambda *a, **named: held.append(num_models()) or spawn(*a, **named))
    gc.collect()
    before = num_models()
    exported = export(chat_run, out, to=to)
    certificate = json.loads((out / "certificate.json").read_text())
    assert certificate == exported.certificate == json.loads((chat_run / "certificate.json").read_text())
    assert (out / "certificate.html").read_text() == (chat_run / "certificate.html").read_text()
    assert certificate["sha256"] == {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in out.iterdir()
        if path.name not in ("certificate.json", "certificate.html")
    }
    assert (certificate["version"], certificate["passed"], certificate["kind"]) == (1, True, to)
    assert certificate["probe"] == {"rows": 8, "prompts": 4, "from": "validation rows"}
    checks = {"logits", "text", "tokenizer", "template", "bos", "stops", "effect", "files"}
    assert set(certificate["checks"]) == checks | ({"merge"} if to != "adapter" else set())
    assert set(certificate["limits"]) == {"logits"} | ({"merge"} if to != "adapter" else set())
    trained_file = chat_run / "adapter/adapter_model.safetensors"
    assert certificate["adapter"]["sha256"] == hashlib.sha256(trained_file.read_bytes()).hexdigest()
    remarks = {"gguf": [], "adapter": [TOKEN_ROWS]}
    assert certificate.get("remarks") == remarks.get(to)
    assert any("greedy text: 4 of 4" in line for line in exported.findings())
    assert len({path.stat().st_mode for path in out.iterdir()}) == 1, "who can read the rest can read the weights"
    assert held == [before], "no model of ours is in memory while the fresh process has its own"


def test_the_best_adapter_is_exported_where_it_is_asked_for(trained_run, tmp_path):
    run = trained_run("llama", train__max_steps=4, evaluate__every_steps=1)
    best = hashlib.sha256((run / "checkpoints/best/adapter_model.safetensors").read_bytes()).hexdigest()
    exported = export(run, tmp_path / "out", to="hf", opening=Opening("best"))
    assert exported.certificate["adapter"] == {"which": "best", "sha256": best}


def test_an_export_needs_no_data(run, tmp_path):
    shutil.copytree(run, tmp_path / "run")
    copied = RunDir(tmp_path / "run")
    rows = run.parent / "rows.jsonl"
    copied.recipe.write_text(copied.recipe.read_text().replace(str(rows), str(rows.with_name("gone.jsonl"))))
    certificate = export(copied.root, tmp_path / "out").certificate
    assert certificate["checks"]["text"]["prompts"] == 4 and certificate["probe"]["from"] == "set texts"


def merge_nothing(weight, update, **how):
    return weight


def merge_twice(weight, update, **how):
    return merge_of_adapters.merged(merge_of_adapters.merged(weight, update, **how), update, **how)


@pytest.mark.parametrize("to", ["hf", "gguf"])
@pytest.mark.parametrize("how", [merge_nothing, merge_twice])
def test_a_merge_that_is_none_fails_and_leaves_nothing(how, to, run, tmp_path, monkeypatch):
    monkeypatch.setattr(merged, "merged", how)
    with pytest.raises(ProofError, match="merging: logits differ"):
        export(run, tmp_path / "out", to=to)
    assert list(tmp_path.iterdir()) == []


CHANGES = {
    "hf": (hf_target, "write_beside", *SPOILS["stop-token"]),
    "adapter": (adapter_target, "save_companions_for_others", *SPOILS["template-byte"]),
    "gguf": (gguf_target, "write_gguf", *GGUF_SPOILS["one-tensor"]),
}


@pytest.mark.parametrize("to", KINDS)
def test_an_export_that_was_changed_after_writing_exits_with_1_and_leaves_nothing(
    to, chat_run, tmp_path, monkeypatch, capsys
):
    module, name, spoil, words = CHANGES[to]
    write = getattr(module, name)

    def write_and_spoil(*given, **named):
        write(*given, **named)
        spoil(next(tmp_path.glob(".out.*.tmp")))

    monkeypatch.setattr(module, name, write_and_spoil)
    (chat_run / "certificate.json").unlink(missing_ok=True)
    assert fledge(["export", str(chat_run), str(tmp_path / "out"), "--to", to]) == 1
    assert words in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == [] and not (chat_run / "certificate.json").exists()


@pytest.mark.parametrize("to", KINDS)
def test_a_place_that_is_taken_is_refused_and_left_alone(to, run, tmp_path):
    (tmp_path / "file").write_text("mine")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "mine").write_text("mine")
    for name in ("file", "folder"):
        with pytest.raises(RunError, match="not there yet"):
            export(run, tmp_path / name, to=to)
    assert (tmp_path / "file").read_text() == (tmp_path / "folder" / "mine").read_text() == "mine"


def test_a_place_that_cannot_be_written_is_an_error_in_words_before_any_work(run, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("mine")
    monkeypatch.setattr(trained, "measure", None)
    with pytest.raises(RunError, match=r"cannot be written(.|\n)*another folder"):
        export(run, tmp_path / "file" / "out", to="hf")


@pytest.mark.parametrize(
    ("to", "options", "words"),
    [
        ("hf", {"dtype": "q8_0"}, "q8_0 is no number format of --to hf(.|\n)*float32, bfloat16, float16"),
        ("gguf", {"dtype": "bfloat16"}, "bfloat16 is no number format of --to gguf(.|\n)*f16, bf16, q8_0"),
        ("adapter", {"dtype": "float32"}, "no number format of --to adapter(.|\n)*leave --dtype away"),
        ("adapter", {"extras": Extras(onto="full")}, "merges nothing(.|\n)*leave --onto away"),
        ("hf", {"extras": Extras(onto="dequantized")}, "base is not quantised(.|\n)*leave --onto away"),
    ],
)
def test_an_option_that_would_have_no_effect_is_refused(to, options, words, run, tmp_path, monkeypatch):
    monkeypatch.setattr(trained, "measure", None)
    with pytest.raises(RunError, match=words) as caught:
        export(run, tmp_path / "out", to=to, **options)
    assert caught.value.exit_code == 2 and list(tmp_path.iterdir()) == []


def test_a_model_that_has_no_gguf_form_is_refused_in_words_before_it_is_loaded(trained_run, tmp_path, monkeypatch):
    monkeypatch.setattr(trained, "measure", None)
    with pytest.raises(ModelError, match=r"llama.cpp(.|\n)*export to hf instead"):
        export(trained_run("falcon-rw"), tmp_path / "out", to="gguf")
    assert list(tmp_path.iterdir()) == []


def test_what_is_to_know_of_a_gguf_file_is_in_its_certificate_on_its_page_and_in_the_findings(trained_run, tmp_path):
    words = "no sliding window here, so the file is for texts of up to 6 tokens"
    exported = export(trained_run("mistral"), tmp_path / "out", to="gguf")
    (remark,) = exported.certificate["remarks"]
    assert words in remark and remark in exported.findings()
    assert words in (tmp_path / "out" / "certificate.html").read_text()


def test_an_export_says_nothing_on_stderr_while_it_writes(run, tmp_path, capfd, remembered):
    export(run, tmp_path / "out", to="hf")
    assert capfd.readouterr().err == ""


def test_the_empty_folder_that_one_is_in_can_be_exported_to(run, tmp_path, monkeypatch, remembered):
    (tmp_path / "out").mkdir()
    monkeypatch.chdir(tmp_path / "out")
    exported = export(run.resolve(), ".", to="adapter")
    assert exported.out == tmp_path / "out" and (tmp_path / "out" / "certificate.json").is_file()


def test_what_comes_to_lie_there_meanwhile_is_left_alone(run, tmp_path, monkeypatch, remembered):
    ask = exporting.ask_outside

    def meanwhile(cases):
        (tmp_path / "out").mkdir()
        (tmp_path / "out" / "mine").write_text("mine")
        return ask(cases)

    monkeypatch.setattr(exporting, "ask_outside", meanwhile)
    with pytest.raises(RunError, match="something in this folder already"):
        export(run, tmp_path / "out", to="adapter")
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["mine"]


def test_a_run_folder_that_cannot_be_written_hinders_no_export(run, tmp_path, remembered):
    shutil.copytree(run, tmp_path / "run")
    (tmp_path / "run/certificate.json").unlink(missing_ok=True)
    (tmp_path / "run/certificate.json/in-the-way").mkdir(parents=True)
    exported = export(tmp_path / "run", tmp_path / "out", to="adapter")
    assert not exported.is_filed and exported.as_json()["is_filed"] is False
    assert any("run folder cannot be written" in line for line in exported.findings())
    assert (tmp_path / "out/certificate.json").is_file()


def test_a_merged_export_is_read_back_with_the_trust_that_its_base_was_given(trained_run, tmp_path, monkeypatch):
    asked = []

    def note(cases):
        asked.extend(cases)
        raise ProofError("far enough")

    monkeypatch.setattr(exporting, "ask_outside", note)
    with pytest.raises(ProofError, match="far enough"):
        run = trained_run("llama", model__trust_remote_code=True)
        export(run, tmp_path / "out", to="hf", opening=Opening(trust_remote_code=True))
    assert [(case.trust_remote_code, case.base) for case in asked] == [(True, None)]
