"""Writes a whole model as a Hugging Face folder that others can load and serve."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

from transformers import PreTrainedModel
from transformers.utils import logging as transformers_logging

from fledge.models.companions import save_companions
from fledge.models.tokenizer import Tokenizer


def write_model(model: PreTrainedModel, tokenizer: Tokenizer, *, folder: Path) -> None:
    """Write config.json, safetensors, tokenizer, chat template and generation_config.json into `folder`.

    generation_config.json keeps what the base's own says of sampling and names every token an answer ends with.
    """
    save_companions(tokenizer, folder)
    settings, stops = model.generation_config, sorted(tokenizer.stop_ids)
    settings.eos_token_id = stops[0] if len(stops) == 1 else stops or None
    settings.pad_token_id = tokenizer.pad_token_id
    if not settings.do_sample:  # the library refuses to write sampling options that have no effect
        settings.temperature = settings.top_p = settings.top_k = None
    model.config.use_cache = True
    with _no_progress_bar():
        model.save_pretrained(folder)
    mode = (folder / "config.json").stat().st_mode
    for path in folder.glob("*.safetensors"):
        path.chmod(mode)  # the library leaves weights readable by their owner alone


@contextlib.contextmanager
def _no_progress_bar() -> Iterator[None]:
    was_shown = transformers_logging.is_progress_bar_enabled()
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        if was_shown:
            transformers_logging.enable_progress_bar()
