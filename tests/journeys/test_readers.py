"""An export is what was trained in the environments of other people too."""

import ast
import json
import shutil
import sys
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from fledge.commands.export import Extras, export
from fledge.commands.train import train
from fledge.commands.verify import verify
from fledge.errors import ProofError, RunError
from fledge.exporting.outside import SCRIPT
from fledge.exporting.sealed import file_sha256
from tests.readers import reader
from tests.runs import fledge, load, recipe_dict, write_rows
from tests.tiny_models import tiny_folder

V4 = "transformers-4.57"


def edit(path: Path, drop: tuple[str, ...] = (), **put) -> None:
    held = json.loads(path.read_text()) if path.exists() else {}
    path.write_text(json.dumps({name: value for name, value in held.items() if name not in drop} | put))


def far_angles(base: Path) -> None:
    """A base as it is published: rotary settings in the spelling of version 4, far from the default."""
    edit(base / "config.json", ("rope_parameters", "dtype"), rope_theta=150.0, torch_dtype="float32")


def newer_angles(base: Path) -> None:
    """The same in the spelling of version 5 alone."""
    edit(base / "config.json", rope_parameters={"rope_type": "default", "rope_theta": 150.0})


def another_head(base: Path) -> None:
    """config.json says that the head is the embedding, and the file has another one."""
    weights = load_file(base / "model.safetensors")
    weights["lm_head.weight"] = weights["model.embed_tokens.weight"].flip(0).contiguous()
    save_file(weights, base / "model.safetensors", {"format": "pt"})
    edit(base / "config.json", tie_word_embeddings=True)


def t5_head(base: Path) -> None:
    """FLAN-T5 as it is published: no tie, and a head of its own."""
    weights = load_file(base / "model.safetensors")
    weights["lm_head.weight"] = weights["shared.weight"].flip(0).contiguous()
    save_file(weights, base / "model.safetensors", {"format": "pt"})
    edit(base / "config.json", ("dtype",), tie_word_embeddings=False, torch_dtype="float32")


BASES = {
    "far angles": ("llama", far_angles),
    "newer angles": ("llama", newer_angles),
    "another head": ("llama", another_head),
    "t5 head": ("t5", t5_head),
}


def trained(folder: Path, architecture: str, change) -> Path:
    base = tiny_folder(architecture, folder / "base")
    change(base)
    rows = write_rows(folder / "rows.jsonl")
    train(load(folder, recipe_dict(base, rows, folder / "run", train__max_steps=3)))
    return folder / "run"


READ_OTHERWISE = ("newer angles", "another head")
"""Bases that version 4 itself takes for another model: an adapter on them is not what was trained there."""


@pytest.mark.parametrize("name", BASES)
def test_merged_and_adapter_are_read_alike_by_version_4(name, tmp_path):
    python = reader(V4)
    run = trained(tmp_path, *BASES[name])
    if name in READ_OTHERWISE:
        with pytest.raises(
            ProofError, match=r"read by transformers 4\.57\.\S+, the adapter in plain peft: logits differ"
        ):
            export(run, tmp_path / "adapter", to="adapter", extras=Extras(prove_in=(python,)))
        assert not (tmp_path / "adapter").exists()
    for to in ("hf",) if name in READ_OTHERWISE else ("hf", "adapter"):
        found = export(run, tmp_path / to, to=to, extras=Extras(prove_in=(python,)))
        (read,) = found.certificate["readers"]
        assert read["versions"]["transformers"].startswith("4.57.")
        assert ("peft" in read["versions"]) == (to == "adapter")
        assert read["logits"]["relative"] < 1e-5 and read["text"]["same"] + read["text"]["ties"] == 4
        assert any(line.startswith("read by transformers 4.57.") for line in found.findings())
        assert "transformers 4.57." in (tmp_path / to / "certificate.html").read_text()


def test_only_the_reader_that_computes_something_else_says_so(tmp_path):
    """rope_theta is taken out of a copy, and its hash put right: version 5 does not need the key, version 4 does."""
    python = reader(V4)
    run = trained(tmp_path, "llama", newer_angles)
    export(run, tmp_path / "out")
    copied = Path(shutil.copytree(tmp_path / "out", tmp_path / "copied"))
    edit(copied / "config.json", ("rope_theta",))
    with pytest.raises(ProofError, match=r"config\.json changed"):
        verify(copied, run)
    certificate = json.loads((copied / "certificate.json").read_text())
    certificate["sha256"]["config.json"] = file_sha256(copied / "config.json")
    (copied / "certificate.json").write_text(json.dumps(certificate))
    assert verify(copied, run).checks["logits"]["relative"] < 1e-5
    with pytest.raises(ProofError, match=r"read by transformers 4\.57\.\S+, the exported model: logits differ"):
        verify(copied, run, prove_in=[python])
    assert verify(tmp_path / "out", run, prove_in=[python]).readers


def test_verify_says_what_it_found_and_refuses_another_run(tmp_path):
    run = trained(tmp_path / "one", "llama", far_angles)
    other = trained(tmp_path / "other", "llama", another_head)
    for to in ("hf", "adapter", "gguf"):
        export(run, tmp_path / to, to=to)
        told = fledge("verify", str(tmp_path / to), "--run", str(run)).stdout
        assert "files have the bytes that the certificate names" in told
        assert told.rstrip().endswith("is what was trained")
        with pytest.raises(ProofError, match="made of another adapter"):
            verify(tmp_path / to, other)
    found = json.loads(fledge("verify", str(tmp_path / "hf"), "--run", str(run), "--json").stdout)
    assert found["kind"] == "hf" and found["checks"]["logits"]["positions"] > 0


def test_the_script_that_other_pythons_run_has_no_newer_syntax():
    ast.parse(SCRIPT.read_text(encoding="utf-8"), feature_version=(3, 9))


def test_a_python_that_cannot_read_is_refused_before_any_work(tmp_path):
    run = trained(tmp_path, "llama", far_angles)
    lame = tmp_path / "lame"
    lame.write_text("#!/bin/sh\necho \"No module named 'transformers'\" >&2\nexit 1\n")
    lame.chmod(0o755)
    for python, words in ((str(lame), "No module named 'transformers'"), (str(tmp_path / "none"), "no Python here")):
        with pytest.raises(RunError, match=words):
            export(run, tmp_path / "out", extras=Extras(prove_in=(python,)))
        assert not (tmp_path / "out").exists()
    with pytest.raises(RunError, match=r"--prove-in: a GGUF file is proven here alone"):
        export(run, tmp_path / "out", to="gguf", extras=Extras(prove_in=(sys.executable,)))
