"""The model card: what a run was, in Markdown with the hub's front matter, from the run's own files alone."""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any

from huggingface_hub import EvalResult, ModelCardData
from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id

from fledge.config.dump import dump_tree
from fledge.config.paths import is_local
from fledge.config.recipe import Recipe, sources
from fledge.exporting.certified import certificate_lines, versions_lines
from fledge.exporting.licence import Licence, licence_of
from fledge.exporting.markdown import fence, is_finite, number, quoted, table, text
from fledge.exporting.sealed import Sealed

_LIBRARIES = {"adapter": "peft", "hf": "transformers", "gguf": "gguf"}
_RELATIONS = {"adapter": "adapter", "hf": "finetune", "gguf": "finetune"}
_COUNTS = {
    "steps": "optimiser steps",
    "rows": "rows trained",
    "tokens": "tokens",
    "supervised_tokens": "tokens that carried the loss",
    "first_loss": "training loss, first step",
    "last_loss": "training loss, last step",
    "validation_loss": "validation loss at the end",
    "best_validation_loss": "best validation loss",
    "best_step": "step of the best validation loss",
    "wall_seconds": "seconds of training",
}
_SOURCE_COUNTS = {
    "rows_read": "rows read",
    "rows_kept": "kept",
    "tokens_trained": "tokens trained",
    "tokens_masked": "masked",
    "tokens_cut": "cut",
}


@dataclass(frozen=True, slots=True)
class Told:
    """What a card is written from."""

    repo: str
    """OWNER/NAME"""
    revision: str
    recipe: Recipe
    sealed: Sealed
    base: Path | None
    """The base's folder, where it lies in one: its own card may name a licence."""
    ledger: Mapping[str, Any]
    summary: Mapping[str, Any]
    manifest: Mapping[str, Any]
    evaluations: Sequence[Mapping[str, Any]] = ()
    """The result.json of each evaluation of this adapter."""

    @property
    def kind(self) -> str:
        """adapter, hf or gguf."""
        return str(self.sealed.certificate["kind"])

    def settings(self, name: str) -> Mapping[str, Any]:
        """A JSON file of the export; nothing where it has none."""
        path = self.sealed.folder / name
        return json.loads(path.read_text(encoding="utf-8")) if name in self.sealed.sha256 else {}

    @property
    def is_pair(self) -> bool:
        """Whether it is an encoder-decoder, by what the export's own configuration says."""
        is_sequence = self.settings("adapter_config.json").get("task_type") == "SEQ_2_SEQ_LM"
        return is_sequence or bool(self.settings("config.json").get("is_encoder_decoder"))


def write_card(told: Told) -> str:
    """The card's whole text. The same run and the same export give the same text, to the byte.

    A licence stands in its front matter only where the base's own card names one; a base or a data set is named there
    only where it is a hub id. Local paths appear by their last part alone.
    """
    licence = licence_of(told.base)
    lines = [
        "---",
        _front_matter(told, licence),
        "---",
        "",
        f"# {text(told.repo.split('/')[-1])}",
        "",
        *_intro(told),
        *["## Use", "", *_use(told)],
        *["## Licence", "", licence.sentence(_base_shown(told.recipe)), ""],
        *["## Data", "", *_data(told.ledger)],
        *["## Recipe", "", *fence("yaml", dump_tree(shown_tree(told.recipe)))],
        *["## Measures", "", *_measures(told)],
        *["## Certificate", "", *certificate_lines(told.sealed.certificate)],
        *["## Versions", "", *versions_lines(told.manifest, told.sealed.certificate)],
    ]
    return "\n".join(lines).rstrip("\n") + "\n"


def _front_matter(told: Told, licence: Licence) -> str:
    base, results = hub_id(told.recipe.model.name_or_path), list(_results(told))
    data = ModelCardData(
        base_model=base,
        base_model_relation=_RELATIONS[told.kind] if base else None,
        datasets=_data_sets(told.recipe) or None,
        library_name=_LIBRARIES[told.kind],
        license=licence.name,
        license_name=licence.full_name,
        license_link=licence.link,
        pipeline_tag="text2text-generation" if told.is_pair else "text-generation",
        tags=["fledge", "lora"],
        model_name=told.repo.split("/")[-1] if results else None,
        eval_results=results or None,
    )
    return str(data.to_yaml())


def hub_id(name: str) -> str | None:
    """The name, where it can only be a hub id; None for a local path and a built-in."""
    try:
        validate_repo_id(name)
    except HFValidationError:
        return None
    return None if is_local(name) else name


def _data_sets(recipe: Recipe) -> list[str]:
    found = [hub_id(source.path) for source in sources(recipe.data.train)]
    return list(dict.fromkeys(name for name in found if name))


def _results(told: Told) -> Iterator[EvalResult]:
    """Evaluations on the rows of one hub data set, as the hub's model index has them."""
    for evaluation in told.evaluations:
        measured_on = _sources(evaluation)
        source = measured_on[0] if len(measured_on) == 1 else {}
        name = hub_id(source["path"]) if source else None
        if name is None:
            continue
        for measure, value in _tuned(evaluation):
            yield EvalResult(
                task_type="text2text-generation" if told.is_pair else "text-generation",
                dataset_type=name,
                dataset_name=name,
                dataset_config=source.get("subset"),
                dataset_split=source.get("split"),
                dataset_revision=source.get("revision"),
                metric_type="rouge" if measure.startswith("rouge") else measure,
                metric_name=measure,
                metric_value=value,
            )


def _tuned(evaluation: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    """What was measured of the tuned model: finite numbers only."""
    measured = {**evaluation.get("tuned", {}), **evaluation.get("rouge", {}).get("tuned", {})}
    yield from ((name, value) for name, value in measured.items() if is_finite(value))


def _sources(evaluation: Mapping[str, Any]) -> list[dict[str, str]]:
    """Where the rows of an evaluation came from, by its own words: what the recipe names may have changed since.

    Empty where it does not say.
    """
    found = evaluation.get("source")
    if not isinstance(found, list) or not all(isinstance(each, dict) for each in found):
        return []
    kept = [{key: value for key, value in each.items() if isinstance(value, str)} for each in found]
    return kept if all(each.get("path") for each in kept) else []


def shown_path(path: str) -> str:
    """A path without the folders of the machine it was on: its last part; a hub id and a built-in as they are."""
    return PurePath(path).name or path if path.startswith(("/", "~")) else path


def shown_tree(recipe: Recipe) -> dict[str, Any]:
    """The recipe's sections, complete, each path by its last part."""
    tree = recipe.model_dump()

    def show(section: Any, key: str) -> None:
        if isinstance(section, dict) and isinstance(section.get(key), str):
            section[key] = shown_path(section[key])

    show(tree["model"], "name_or_path")
    show(tree["output"], "dir")
    show(tree["data"], "chat_template")
    for name in ("train", "validation", "test"):
        value = tree["data"][name]
        for source in value if isinstance(value, list | tuple) else [value]:
            show(source, "path")
    return tree


def _base_shown(recipe: Recipe) -> str:
    name = recipe.model.name_or_path
    return f"[{text(name)}](https://huggingface.co/{name})" if hub_id(name) else text(shown_path(name))


def _intro(told: Told) -> list[str]:
    base, dtype = _base_shown(told.recipe), text(told.sealed.certificate.get("dtype"))
    what = {
        "adapter": f"A LoRA adapter for {base}",
        "hf": f"{base} with a LoRA adapter merged into its weights, in {dtype}",
        "gguf": f"{base} with a LoRA adapter merged into its weights, as a GGUF file in {dtype}",
    }[told.kind]
    chosen = "the best by validation loss" if told.sealed.adapter.get("which") == "best" else "the last one"
    version = text(told.sealed.certificate.get("versions", {}).get("fledge", ""))
    trained = f"trained with Fledge {version}".rstrip()
    return [f"{what}, {trained}; of the run's adapters {chosen}.", ""]


def _use(told: Told) -> list[str]:
    """How to load it without Fledge."""
    if told.kind == "gguf":
        files = ", ".join(text(name) for name in told.sealed.sha256 if name.endswith(".gguf"))
        return [f"Load {files} with a program that reads GGUF, such as llama.cpp.", ""]
    plain = "AutoModelForSeq2SeqLM" if told.is_pair else "AutoModelForCausalLM"
    auto = str(told.sealed.certificate.get("base", {}).get("loads_with", plain))
    model, repo = told.recipe.model, quoted(told.repo)
    there = f"{repo}, revision={quoted(told.revision)}" if told.revision != "main" else repo
    trusted = ", trust_remote_code=True" * model.trust_remote_code
    imports = [f"from transformers import {auto}, AutoTokenizer", ""]
    tokenizer = f"tokenizer = AutoTokenizer.from_pretrained({there}{trusted})"
    if told.kind == "hf":
        dtype = quoted(str(told.sealed.certificate.get("dtype")))
        code = [*imports, tokenizer, f"model = {auto}.from_pretrained({there}, dtype={dtype}{trusted})"]
        return fence("python", "\n".join(code))
    name = quoted(shown_path(model.name_or_path))
    pinned = f", revision={quoted(model.revision)}" if model.revision != "main" else ""
    remark = "" if hub_id(model.name_or_path) else "  # not on the hub: give its folder"
    code = ["from peft import PeftModel", *imports, tokenizer]
    code += [f"base = {auto}.from_pretrained({name}{pinned}, dtype={quoted(model.dtype)}{trusted}){remark}"]
    if told.settings("adapter_config.json").get("trainable_token_indices"):
        code += ["if len(tokenizer) > base.get_input_embeddings().weight.shape[0]:  # the adapter brings new tokens"]
        code += ["    base.resize_token_embeddings(len(tokenizer), mean_resizing=False)"]
    return fence("python", "\n".join([*code, f"model = PeftModel.from_pretrained(base, {there})"]))


def _data(ledger: Mapping[str, Any]) -> list[str]:
    """What became of every row and token, by source, from the run's ledger."""
    rows = []
    for role, entries in ledger.get("sources", {}).items():
        for entry in entries:
            dropped = ", ".join(f"{number(count)} {text(why)}" for why, count in entry["rows_dropped"].items())
            counts = [number(entry.get(key, 0)) for key in _SOURCE_COUNTS]
            rows.append([text(role), text(shown_path(entry["source"])), text(entry["format"]), *counts, dropped or "-"])
    shares = [
        [text(role), *(number(share[key]) for key in ("rows", "tokens", "supervised_tokens"))]
        for role, share in ledger.get("shares", {}).items()
    ]
    if not rows:
        return ["The run has no ledger.", ""]
    return [
        "Every row that was read, and every token, is in one of these columns.",
        "",
        *table(["for", "source", "format", *_SOURCE_COUNTS.values(), "rows dropped"], rows),
        *table(["share", "rows", "tokens", "tokens that carry the loss"], shares),
    ]


def _measures(told: Told) -> list[str]:
    summary = told.summary
    rows = [[words, number(summary[key])] for key, words in _COUNTS.items() if summary.get(key) is not None]
    lines = table(["training", ""], rows)
    for evaluation in told.evaluations:
        measures = list(_beside(evaluation))
        about = f"{text(evaluation.get('on'))}, {number(evaluation.get('rows'))} rows{_of(evaluation)}"
        if evaluation.get("rows_with_several_references"):
            about += ", best of several references"
        lines += table([about, "base", "tuned"], measures)
    return lines or ["Nothing was measured.", ""]


def _of(evaluation: Mapping[str, Any]) -> str:
    """Of which rows an evaluation is, as a part of a sentence."""
    names = [text(shown_path(each["path"])) for each in _sources(evaluation)]
    digest = evaluation.get("rows_sha256")
    if not names or not isinstance(digest, str):
        return ", of a data set that was not noted"
    return f" of {' and '.join(dict.fromkeys(names))} (sha256 of all its rows {text(digest[:12])})"


def _beside(evaluation: Mapping[str, Any]) -> Iterator[list[str]]:
    """A line for each measure, base beside tuned."""
    base = {**evaluation.get("base", {}), **evaluation.get("rouge", {}).get("base", {})}
    tuned = {**evaluation.get("tuned", {}), **evaluation.get("rouge", {}).get("tuned", {})}
    for name in tuned:
        yield [re.sub("_", " ", name), number(base.get(name)), number(tuned[name])]
