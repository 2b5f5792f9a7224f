"""An export in which one tensor, one byte of the template or one stop token was changed is not certified."""

import json
from pathlib import Path

import pytest

from fledge.errors import ProofError
from tests.unit.exporting.drafts import GGUF_SPOILS, SPOILS, ask, spoilt, write

KINDS = {"hf": SPOILS, "adapter": SPOILS, "gguf": GGUF_SPOILS}
CASES = [(kind, name) for kind, spoils in KINDS.items() for name in spoils]


LIGHT = ("float32", "bfloat16")


@pytest.fixture(scope="module")
def asked(trained_run, tmp_path_factory):
    """An untouched export and a spoilt copy for each way to spoil it, and what a fresh process says of them."""
    folder, written = tmp_path_factory.mktemp("spoilt"), {}
    run = trained_run("llama", fmt="chat", data__chat_template="chatml")
    for kind in KINDS:
        whole = write(run, folder / kind, to=kind)
        written[kind, ""] = whole
        for name, (spoil, _) in KINDS[kind].items():
            written[kind, name] = spoilt(whole, folder / f"{kind}-{name}", spoil)
    for dtype in LIGHT:
        light = trained_run("llama", model__dtype=dtype, train__learning_rate=3e-4)
        written["light", dtype] = whole = write(light, folder / f"light-{dtype}", to="adapter")
        written["lost", dtype] = spoilt(whole, folder / f"lost-{dtype}", lose_the_adapter)
    return written, ask(written)


def lose_the_adapter(folder: Path) -> None:
    """The adapter is loaded, and scaled by nothing."""
    path = folder / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"lora_alpha": 0}))


@pytest.mark.parametrize("kind", KINDS)
def test_the_untouched_export_is_proven(kind, asked):
    written, found = asked
    assert written[kind, ""].draft.prove(written[kind, ""].folder, found[kind, ""])["text"]["same"] == 4


def test_the_cases_are_all_there():
    assert len(CASES) == 3 * 6


@pytest.mark.parametrize(("kind", "name"), CASES)
def test_one_change_fails_the_proof(kind, name, asked):
    written, found = asked
    with pytest.raises(ProofError, match=KINDS[kind][name][1]):
        written[kind, name].draft.prove(written[kind, name].folder, found[kind, name])


@pytest.mark.parametrize("dtype", LIGHT)
def test_a_light_adapter_that_is_lost_on_its_way_fails_where_rounding_hides_it_too(dtype, asked):
    written, found = asked
    kept = written["light", dtype].draft.prove(written["light", dtype].folder, found["light", dtype])
    assert kept["effect"]["mean_kl"] < 1e-2, "light: rounding to bfloat16 may move the model further"
    with pytest.raises(ProofError, match="plain peft"):
        written["lost", dtype].draft.prove(written["lost", dtype].folder, found["lost", dtype])
