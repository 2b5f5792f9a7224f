"""A model card says what the run was, keeps the machine's folders to itself, and no value can break it."""

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from fledge.config.recipe import Recipe
from fledge.exporting.card import Told, hub_id, shown_path, write_card
from fledge.exporting.licence import Licence, licence_of
from fledge.exporting.sealed import Sealed

DIGEST = "ab" * 32
EVIL = "evil|name`<script>alert(1)</script>\n---\nlicense: mit\n# [x](http://h) $a$ **b** ![i](j)"
CHECKS = {
    "logits": {"max_abs": 1.5e-6, "mean_kl": 0.0, "positions": 1220, "tolerance": {"mean_kl": 1e-07, "tie": 1e-05}},
    "text": {"prompts": 4, "same": 4, "ties": 0, "answers": [{"prompt": "my private row", "trained": "yes"}]},
    "stops": {"eos_token_id": [1, 2]},
    "tokenizer": {"identity": DIGEST, "has_chat_template": False},
    "to_come": {"inner": {"figure": 0.25}, "long": list(range(100)), "none": None},
}
RESULT = {
    "on": "validation",
    "source": [{"path": "/secret/place/held.jsonl", "split": "train"}],
    "rows_sha256": "cd" * 32,
    "rows": 10,
    "base": {"loss": 5.9, "perplexity": 365.04},
    "tuned": {"loss": 4.5, "perplexity": float("inf")},
    "rouge": {"base": {"rougeL": 0.1}, "tuned": {"rougeL": 0.5}},
}


def told(folder: Path, *, kind: str = "adapter", recipe: Recipe | None = None, **changes: Any) -> Told:
    """A card's material: an export of `kind` in `folder`, from a run with local files unless `recipe` is given."""
    names = {"adapter": "adapter_config.json", "hf": "config.json", "gguf": "model-q8_0.gguf"}
    folder.mkdir(parents=True, exist_ok=True)
    (folder / names[kind]).write_text("{}")
    certificate = {
        "version": 1,
        "passed": True,
        "kind": kind,
        "dtype": "bfloat16",
        "adapter": {"which": "last", "sha256": DIGEST},
        "versions": {"fledge": "0.1.0", "torch": "2.13.0"},
        "checks": CHECKS,
        "sha256": {names[kind]: DIGEST},
    }
    material = Told(
        repo="ada/little",
        revision="main",
        recipe=recipe or local_recipe(),
        sealed=Sealed(folder, certificate),
        base=None,
        ledger=LEDGER,
        summary={"steps": 6, "rows": 46, "tokens": 1400, "first_loss": 5.96, "last_loss": 4.66},
        manifest={"versions": {"fledge": "0.1.0", "python": "3.11.7"}},
        evaluations=[RESULT],
    )
    return replace(material, **changes)


def local_recipe(**data: Any) -> Recipe:
    source = {"path": "/secret/place/rows|1.jsonl", "format": "completion", "prompt_prefix": "/no_think ```\n"}
    body = {"train": (source, source | {"path": "/secret/*/x.jsonl"}), "chat_template": "/secret/place/t.jinja"} | data
    return Recipe.model_validate(
        {
            "model": {"name_or_path": "/secret/place/my_base"},
            "data": body,
            "output": {"dir": "/secret/runs/first"},
        }
    )


def hub_recipe() -> Recipe:
    source = {"path": "tatsu-lab/alpaca", "format": "alpaca", "split": "train[:10]"}
    mixed = (source, {"path": "/secret/rows.jsonl", "format": "alpaca"})
    data = {"train": mixed, "validation": source}
    return Recipe.model_validate({"model": {"name_or_path": "bigscience/bloom-560m", "revision": "v1"}, "data": data})


LEDGER = {
    "sources": {
        "train": [
            {
                "source": f"/secret/place/{EVIL}",
                "format": "completion",
                "rows_read": 48,
                "rows_kept": 46,
                "rows_dropped": {"empty|answer": 2},
                "tokens_trained": 1273,
                "tokens_masked": 1147,
                "tokens_cut": 0,
            }
        ]
    },
    "shares": {"train": {"rows": 38, "tokens": 1160, "supervised_tokens": 219}},
}


def front_matter(card: str) -> dict[str, Any]:
    _, block, _ = card.split("---\n", 2)
    return yaml.safe_load(block)


def blocks(card: str, language: str) -> list[str]:
    found = re.findall(rf"^(`{{3,}}){language}\n(.*?)\n\1$", card, re.DOTALL | re.MULTILINE)
    return [content for _, content in found]


def rows_of(card: str) -> list[list[str]]:
    """Every table row's cells, split at the pipes that are not escaped."""
    lines = [line for line in card.split("\n") if line.startswith("| ")]
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines]


def test_no_folder_of_the_machine_is_on_the_card(tmp_path):
    card = write_card(told(tmp_path))
    assert "secret" not in card and "rows|1.jsonl" in card and "my_base" in card
    assert str(tmp_path) not in card
    (recipe,) = blocks(card, "yaml")
    shown = yaml.safe_load(recipe)
    assert shown["model"]["name_or_path"] == "my_base" and shown["output"]["dir"] == "first"
    assert shown["data"]["chat_template"] == "t.jinja"
    assert [source["path"] for source in shown["data"]["train"]] == ["rows|1.jsonl", "x.jsonl"]


def test_the_recipe_is_complete_and_only_paths_are_shortened(tmp_path):
    recipe = local_recipe()
    (block,) = blocks(write_card(told(tmp_path, recipe=recipe)), "yaml")
    shown, whole = yaml.safe_load(block), json.loads(json.dumps(recipe.model_dump()))
    assert shown["data"]["train"][0]["prompt_prefix"] == "/no_think ```\n", "what only looks like a path stays"
    for tree in (shown, whole):
        for section, key in (("model", "name_or_path"), ("output", "dir"), ("data", "chat_template")):
            tree[section].pop(key)
        for source in tree["data"]["train"]:
            source.pop("path")
    assert shown == whole


def test_no_value_breaks_the_front_matter_a_table_or_a_fence(tmp_path):
    material = told(tmp_path, summary={"steps": EVIL, "last_loss": "nan"}, manifest={"versions": {EVIL: EVIL}})
    material = replace(material, evaluations=[RESULT | {"on": EVIL}])
    checks = CHECKS | {EVIL: {EVIL: EVIL, "tolerance": {EVIL: 1.0}}}
    certificate = dict(material.sealed.certificate) | {"checks": checks, "dtype": EVIL, "versions": {"fledge": EVIL}}
    card = write_card(replace(material, sealed=Sealed(tmp_path, certificate)))
    assert set(front_matter(card)) == {"library_name", "pipeline_tag", "tags"}
    assert card.count("\n---\n") == 1
    widths = [len(row) for row in rows_of(card)]
    assert set(widths) <= {2, 3, 4, 9} and len(widths) > 15
    assert not re.search(r"(?<!\\)<script|^license:|^# \[x", card, re.MULTILINE)
    headings = re.findall(r"^#+ .*$", card, re.MULTILINE)
    assert headings == [
        "# little",
        *(f"## {name}" for name in "Use,Licence,Data,Recipe,Measures,Certificate,Versions".split(",")),
    ]


def test_what_the_rows_said_stays_in_the_certificate(tmp_path):
    card = write_card(told(tmp_path))
    assert "private row" not in card
    assert "prompts 4, same 4, ties 0" in card and "inner figure 0.25" in card
    assert "mean KL in nats 0, positions 1,220" in card and "mean KL in nats 1e-07" in card
    assert DIGEST not in card and DIGEST[:12] in card


def test_hub_ids_and_nothing_else_are_named_in_the_front_matter(tmp_path):
    local = front_matter(write_card(told(tmp_path)))
    assert not {"base_model", "base_model_relation", "datasets", "model-index", "license", "language"} & set(local)
    measured = RESULT | {"source": [{"path": "tatsu-lab/alpaca", "split": "train[:10]"}]}
    there = front_matter(write_card(told(tmp_path, recipe=hub_recipe(), evaluations=[measured])))
    assert there["base_model"] == "bigscience/bloom-560m" and there["base_model_relation"] == "adapter"
    assert there["datasets"] == ["tatsu-lab/alpaca"] and there["library_name"] == "peft"
    (model,) = there["model-index"]
    (result,) = model["results"]
    assert result["dataset"] == {"name": "tatsu-lab/alpaca", "type": "tatsu-lab/alpaca", "split": "train[:10]"}
    assert [(m["name"], m["value"]) for m in result["metrics"]] == [("loss", 4.5), ("rougeL", 0.5)], "finite ones"


def test_numbers_go_with_the_data_set_that_the_result_names_and_never_with_the_recipes(tmp_path):
    other = RESULT | {"source": [{"path": "ada/other", "subset": "en", "split": "test", "revision": "v2"}]}
    card = write_card(told(tmp_path, recipe=hub_recipe(), evaluations=[other]))
    [result] = front_matter(card)["model-index"][0]["results"]
    named = {"name": "ada/other", "type": "ada/other", "config": "en", "split": "test", "revision": "v2"}
    assert result["dataset"] == named
    assert "validation, 10 rows of ada/other (sha256 of all its rows cdcdcdcdcdcd)" in card
    mixed = RESULT | {"source": [*other["source"], *RESULT["source"]]}
    card = write_card(told(tmp_path, recipe=hub_recipe(), evaluations=[mixed]))
    assert "model-index" not in front_matter(card), "numbers of a mixture are no data set's"
    assert "10 rows of ada/other and held.jsonl (" in card and "/secret" not in card


@pytest.mark.parametrize(
    "source", [None, "tatsu-lab/alpaca", [], ["tatsu-lab/alpaca"], [{"path": 3}], [{"split": "x"}]]
)
def test_numbers_of_rows_that_were_not_noted_name_no_data_set(source, tmp_path):
    older = {key: value for key, value in RESULT.items() if key not in ("source", "rows_sha256")}
    older |= {} if source is None else {"source": source}
    card = write_card(told(tmp_path, recipe=hub_recipe(), evaluations=[older]))
    assert "model-index" not in front_matter(card)
    assert "validation, 10 rows, of a data set that was not noted" in card and "365" in card


@pytest.mark.parametrize("kind", ["adapter", "hf", "gguf"])
def test_each_kind_says_what_it_is_and_how_it_is_loaded(kind, tmp_path):
    card = write_card(told(tmp_path, kind=kind, recipe=hub_recipe()))
    data, code = front_matter(card), blocks(card, "python")
    assert data["library_name"] == {"adapter": "peft", "hf": "transformers", "gguf": "gguf"}[kind]
    assert data["base_model_relation"] == ("adapter" if kind == "adapter" else "finetune")
    for block in code:
        compile(block, "card", "exec")
    if kind == "gguf":
        assert not code and "llama.cpp" in card
    elif kind == "hf":
        assert (
            'AutoModelForCausalLM.from_pretrained("ada/little", dtype="bfloat16")' in code[0] and "peft" not in code[0]
        )
    else:
        assert 'from_pretrained("bigscience/bloom-560m", revision="v1", dtype="bfloat16")' in code[0]
        assert 'PeftModel.from_pretrained(base, "ada/little")' in code[0]


def test_an_encoder_decoder_and_new_tokens_are_told_by_what_the_export_says(tmp_path):
    material = told(tmp_path)
    settings = {"task_type": "SEQ_2_SEQ_LM", "trainable_token_indices": {"shared": [320]}}
    (tmp_path / "adapter_config.json").write_text(json.dumps(settings))
    card = write_card(material)
    assert front_matter(card)["pipeline_tag"] == "text2text-generation"
    assert "AutoModelForSeq2SeqLM" in card and "resize_token_embeddings(len(tokenizer)" in card
    merged = told(tmp_path / "merged", kind="hf")
    (tmp_path / "merged/config.json").write_text('{"is_encoder_decoder": true}')
    assert "AutoModelForSeq2SeqLM" in write_card(merged)


def test_the_same_run_gives_the_same_card_to_the_byte(tmp_path):
    assert write_card(told(tmp_path)) == write_card(told(tmp_path))


def test_a_run_without_a_ledger_or_measures_has_a_card_all_the_same(tmp_path):
    card = write_card(told(tmp_path, ledger={}, summary={}, manifest={}, evaluations=[]))
    assert "no ledger" in card and "Nothing was measured" in card


LICENCES = {
    "---\nlicense: apache-2.0\ntags: [x]\n---\nbody": Licence("apache-2.0"),
    "\ufeff---\r\nlicense: 'MIT'\r\n---\r\n": Licence("mit"),
    "---\nlicense: other\nlicense_name: my-own\nlicense_link: https://h/l\n---\n": Licence(
        "other", "my-own", "https://h/l"
    ),
    "---\nlicense: other\nlicense_name: my-own\nlicense_link: LICENSE\n---\n": Licence("other", "my-own"),
    "---\nlicense: other\nlicense_name: |\n  x\nlicense_link: javascript:x\n---\n": Licence("other"),
    "---\nlicense:\n- mit\n---\n": Licence(),
    "---\nlicense: [mit, gpl]\n---\n": Licence(),
    "---\nlicense: mit # or not\n---\n": Licence(),
    "---\nlicense: *anchor\n---\n": Licence(),
    "---\nx: y\n---\nlicense: mit\n": Licence(),
    "license: mit\n": Licence(),
    "---\nlicense: mit\n": Licence(),
    "": Licence(),
}


@pytest.mark.parametrize("card", LICENCES)
def test_a_licence_is_what_the_base_s_own_card_says_in_one_plain_line(card, tmp_path):
    (tmp_path / "README.md").write_text(card, newline="")
    assert licence_of(tmp_path) == LICENCES[card]
    material = told(tmp_path / "export", base=tmp_path)
    data = front_matter(write_card(material))
    found = (data.get("license"), data.get("license_name"), data.get("license_link"))
    assert found == (LICENCES[card].name, LICENCES[card].full_name, LICENCES[card].link)
    sentence = "The base's own card says" if LICENCES[card].name else "The licence of the base"
    assert sentence in write_card(material)


def test_no_base_folder_and_no_text_make_no_licence(tmp_path):
    assert licence_of(None) == licence_of(tmp_path) == licence_of(tmp_path / "absent") == Licence()
    (tmp_path / "README.md").write_bytes(b"---\nlicense: \xff\xfe\n---\n")
    assert licence_of(tmp_path) == Licence()


def test_names_are_told_from_paths():
    assert [shown_path(path) for path in ("/a/b.json", "a/b", "builtin:nestling", "/", "~/x/y")] == [
        "b.json",
        "a/b",
        "builtin:nestling",
        "/",
        "y",
    ]
    assert hub_id("a/b") == "a/b" and hub_id("gpt2") == "gpt2"
    assert [hub_id(name) for name in ("/a/b", "builtin:nestling", "a/b/c", "rows.jsonl", "./a", "a*")] == [None] * 6


def test_the_class_that_loads_a_base_for_text_and_images_is_what_its_certificate_names(tmp_path):
    material = told(tmp_path)
    material.sealed.certificate["base"] = {"loads_with": "AutoModelForImageTextToText"}
    (code,) = blocks(write_card(material), "python")
    assert "from transformers import AutoModelForImageTextToText, AutoTokenizer" in code
    assert "base = AutoModelForImageTextToText.from_pretrained(" in code
