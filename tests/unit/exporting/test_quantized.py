"""A run on a quantised base is merged onto what measures closer to it, with both measurements written down."""

import gc
from dataclasses import replace

import pytest

from fledge.commands.export import probe_of, source_of
from fledge.commands.open_run import open_run
from fledge.errors import ProofError
from fledge.exporting.behaviour import measure
from fledge.exporting.merging import merge_closest
from fledge.exporting.trained import measure_trained
from fledge.exporting.verify import distance
from tests.unit.exporting.drafts import ask, num_models, write

CASES = {
    "nf4": ("llama", {"model__quantization": "nf4"}),
    "int8": ("llama", {"model__quantization": "int8"}),
    "nf4-bfloat16": ("gemma", {"model__quantization": "nf4", "model__dtype": "bfloat16"}),
    "int8-t5": ("t5", {"model__quantization": "int8"}),
    "int8-gpt2": ("gpt2", {"model__quantization": "int8"}),
}


@pytest.fixture(scope="module")
def exports(trained_run, tmp_path_factory):
    """Every case as a merged export, as a GGUF file and as an adapter, and what one fresh process says of them."""
    folder, written = tmp_path_factory.mktemp("quantised"), {}
    for name, (architecture, changes) in CASES.items():
        for to in ("hf", "gguf", "adapter"):
            written[name, to] = write(trained_run(architecture, **changes), folder / f"{name}-{to}", to=to)
    written["forced", "hf"] = write(trained_run("llama", **CASES["nf4"][1]), folder / "forced", onto="full")
    found = ask(written)
    return {name: (each, found[name]) for name, each in written.items()}


@pytest.fixture(scope="module")
def checks(exports):
    proven = ((name, each) for name, each in exports.items() if name[0] != "forced")
    return {name: written.draft.prove(written.folder, found) for name, (written, found) in proven}


@pytest.mark.parametrize("to", ["hf", "gguf"])
@pytest.mark.parametrize("case", CASES)
def test_the_closer_base_is_taken_and_both_measurements_are_written_down(case, to, checks):
    choice = checks[case, to]["choice"]
    assert choice["asked"] == "auto" and choice["onto"] == "dequantized"
    assert choice["dequantized"]["mean_kl"] < choice["full"]["mean_kl"]
    assert checks[case, to]["merge"]["max_abs"] < 1e-3
    logits = checks[case, to]["logits"]
    assert logits["mean_kl"] <= logits["tolerance"]["mean_kl"] < checks[case, to]["effect"]["mean_kl"]


@pytest.mark.parametrize("case", CASES)
def test_an_adapter_is_proven_on_the_base_as_it_came_and_says_how_far_that_is_from_the_training(case, checks):
    found = checks[case, "adapter"]
    assert found["logits"]["max_abs"] < 1e-3 and found["text"]["same"] == 4
    assert found["on_full_precision"]["mean_kl"] == pytest.approx(
        checks[case, "hf"]["choice"]["full"]["mean_kl"], rel=0.2
    )
    assert found["on_full_precision"]["mean_kl"] > 1e-6 and "choice" not in found


def test_full_precision_is_taken_where_it_measures_closer_and_models_are_loaded_one_after_the_other(trained_run):
    opened = open_run(trained_run("llama", model__quantization="nf4"))
    whole, probe, loads = source_of(opened, "last"), probe_of(opened), []

    def load(dtype, onto):
        """A quantised base whose products come out as in full precision, as far as this model can tell."""
        gc.collect()
        loads.append((onto, num_models()))
        return whole.load(dtype, "full" if onto == "trained" else onto)

    source = replace(whole, load=load)
    learnt = measure_trained(source, probe)
    closest = merge_closest(source, learnt, probe=probe, asked="auto", dtype="float32")
    choice = closest.checks["choice"]
    assert choice["onto"] == "full" and choice["full"]["mean_kl"] < choice["dequantized"]["mean_kl"]
    assert [onto for onto, _ in loads] == ["trained", "full", "dequantized"]
    assert len({held for _, held in loads}) == 1, "no model of ours is in memory where the next one is loaded"
    model = closest.merged.model("float32")
    assert distance(learnt.behaviour.logits, measure(model, probe).logits).relative < 1e-5


def test_full_precision_that_is_forced_and_too_far_fails(exports):
    forced, found = exports["forced", "hf"]
    with pytest.raises(ProofError, match="the exported model: logits differ"):
        forced.draft.prove(forced.folder, found)
