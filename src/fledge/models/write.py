"""Writes a whole model as a Hugging Face folder that others can load and serve."""

from pathlib import Path

from transformers import PreTrainedModel

from fledge.models.companions import save_companions
from fledge.models.language import text_config
from fledge.models.quiet import quiet
from fledge.models.tokenizer import Tokenizer

SHARD = "5GB"
"""The most that one file of weights holds, unless one tensor alone is larger."""


def write_model(model: PreTrainedModel, tokenizer: Tokenizer, *, folder: Path) -> None:
    """Write config.json, safetensors, tokenizer, chat template and generation_config.json into `folder`.

    generation_config.json keeps what the base's own says of sampling and names every token an answer ends with. The
    weights are written from where they lie: no second copy of a model on the CPU is made.
    """
    save_companions(tokenizer, folder)
    settings, stops = model.generation_config, sorted(tokenizer.stop_ids)
    settings.eos_token_id = stops[0] if len(stops) == 1 else stops or None
    settings.pad_token_id = tokenizer.pad_token_id
    if not settings.do_sample:  # the library refuses to write sampling options that have no effect
        settings.temperature = settings.top_p = settings.top_k = None
    text_config(model).use_cache = True
    with quiet():
        model.save_pretrained(folder, max_shard_size=SHARD)
    mode = (folder / "config.json").stat().st_mode
    for path in folder.glob("*.safetensors"):
        path.chmod(mode)  # the library leaves weights readable by their owner alone
