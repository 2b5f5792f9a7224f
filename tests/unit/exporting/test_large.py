"""Large models are exported and proven with one block's weights in memory, and are what small ones are."""

import pytest
import torch

from fledge.commands.export import export, probe_of, source_of
from fledge.commands.open_run import open_run
from fledge.errors import ProofError
from fledge.exporting import large
from fledge.exporting.behaviour import batch_logits, logits_of
from fledge.exporting.merged import merged_onto, outline_of
from fledge.exporting.streamed import is_streamed, streamed
from fledge.exporting.targets import hf as hf_target
from fledge.models.blocks import blocks
from tests.unit.exporting.drafts import SPOILS

CPU = torch.device("cpu")


@pytest.fixture
def all_are_large(monkeypatch):
    monkeypatch.setattr(large, "FROM", 0)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_blocks_take_no_memory_before_and_after_they_compute(dtype, trained_run, all_are_large):
    opened = open_run(trained_run("llama"))
    source, rows = source_of(opened, "last"), probe_of(opened).rows
    outline, updates = outline_of(source)
    with streamed(merged_onto(source, "full", outline=outline, updates=updates), dtype) as model:
        inside = [parameter for block in blocks(model) for parameter in block.parameters()]
        before = sum(parameter.untyped_storage().nbytes() for parameter in inside)
        batch_logits(model, rows)
        after = sum(parameter.untyped_storage().nbytes() for parameter in inside)
    assert before == after == sum(parameter.element_size() for parameter in inside)


@pytest.mark.parametrize("architecture", ["llama", "qwen2", "gpt2", "bloom", "gemma2", "t5", "bart"])
def test_block_by_block_is_what_the_whole_model_computes(architecture, trained_run, all_are_large):
    opened = open_run(trained_run(architecture))
    source, rows = source_of(opened, "last"), probe_of(opened).rows
    outline, updates = outline_of(source)
    assert is_streamed(outline, device=CPU)
    merged = merged_onto(source, "full", outline=outline, updates=updates)
    whole = [logits_of(merged.model("float32"), row) for row in rows]
    with streamed(merged, "float32") as model:
        found = batch_logits(model, rows)
    for one, other in zip(found, whole, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("architecture", "changes"),
    [("llama", {}), ("t5", {}), ("mistral", {"model__dtype": "bfloat16"}), ("llama", {"model__quantization": "nf4"})],
)
def test_an_export_is_proven_without_being_held_in_memory(architecture, changes, trained_run, tmp_path, all_are_large):
    checks = export(trained_run(architecture, **changes), tmp_path / "out", to="hf").certificate["checks"]
    assert checks["files"]["tensors"] > checks["files"]["loaded"] == 0 == checks["files"]["differing"]
    assert checks["text"]["same"] + checks["text"]["ties"] == 4
    assert checks["logits"]["positions"] > 100


@pytest.mark.parametrize("spoil", ["one-tensor", "stop-token", "template-byte", "doubled-bos"])
def test_a_change_after_writing_fails_the_proof_of_a_large_model_too(
    spoil, trained_run, tmp_path, all_are_large, monkeypatch
):
    change, words = SPOILS[spoil]
    write = hf_target.write_beside

    def write_and_spoil(*given, **named):
        write(*given, **named)
        change(given[1])

    monkeypatch.setattr(hf_target, "write_beside", write_and_spoil)
    run = trained_run("llama", fmt="chat", data__chat_template="chatml")
    with pytest.raises(ProofError, match=words):
        export(run, tmp_path / "out", to="hf")
    assert list(tmp_path.iterdir()) == []
