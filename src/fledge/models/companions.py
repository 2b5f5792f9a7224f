"""What lies beside an adapter so that others can serve it: tokenizer, chat template, and where to stop."""

from pathlib import Path

from transformers import GenerationConfig

from fledge.models.saved_words import save_tokenizer
from fledge.models.tokenizer import Tokenizer


def save_companions(tokenizer: Tokenizer, folder: Path) -> None:
    """Write the tokenizer and a generation_config.json that names every token an answer ends with."""
    save_tokenizer(tokenizer, folder)
    stops = sorted(tokenizer.stop_ids)
    GenerationConfig(
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=stops[0] if len(stops) == 1 else stops or None,
        pad_token_id=tokenizer.pad_token_id,
        decoder_start_token_id=tokenizer.decoder_start_id,
    ).save_pretrained(folder)
