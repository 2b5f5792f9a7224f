"""Writes what lies beside a merged model's weights: the base's own files, with what training changed written in."""

import json
import shutil
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel
from transformers.utils import CONFIG_NAME, GENERATION_CONFIG_NAME

from fledge.config.model import Dtype, ModelConfig
from fledge.models.generation import own_generation, written_generation
from fledge.models.own_files import own_code, own_json
from fledge.models.saved_words import save_for_others
from fledge.models.tokenizer import Tokenizer, ids_in
from fledge.models.written_config import written_config


def write_beside(
    model: PreTrainedModel, folder: Path, *, base: ModelConfig, tokenizer: Tokenizer, dtype: Dtype
) -> None:
    """Write config.json, generation_config.json, the tokenizer and the base's own code into `folder`.

    Of `model` only its form is asked: it may be without weights. Each file is the base's, key by key, but for what
    training changed; the ids on which an answer ends are written where they are others than the base's own.
    """
    save_for_others(tokenizer, folder)
    own = own_json(base, CONFIG_NAME) or model.config.to_dict()
    generation = own_generation(base, model.config)
    in_config, in_generation = (frozenset(ids_in(each.get("eos_token_id"))) for each in (own, generation))
    changed = None if tokenizer.stop_ids in (in_config, in_generation) else tokenizer.stop_ids
    write_settings(written_config(own, model, dtype=dtype, stop_ids=changed), folder / CONFIG_NAME)
    write_settings(written_generation(generation, tokenizer), folder / GENERATION_CONFIG_NAME)
    for name, path in own_code(base, own).items():
        shutil.copyfile(path, folder / name)


def write_settings(settings: dict[str, Any], path: Path) -> None:
    """A JSON file in the order of its keys."""
    path.write_text(json.dumps(settings, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
