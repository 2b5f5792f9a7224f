"""What lies beside an adapter so that others can serve it: tokenizer, chat template, and where to stop."""

from pathlib import Path

from transformers import AutoConfig, GenerationConfig
from transformers.utils import GENERATION_CONFIG_NAME

from fledge.config.model import ModelConfig
from fledge.models.generation import own_generation, written_generation
from fledge.models.locate import locate
from fledge.models.saved_words import save_for_others, save_tokenizer
from fledge.models.tokenizer import Tokenizer
from fledge.models.write import write_settings
from fledge.models.written_config import as_ids


def save_companions(tokenizer: Tokenizer, folder: Path) -> None:
    """Write the tokenizer and a generation_config.json that names every token an answer ends with."""
    save_tokenizer(tokenizer, folder)
    GenerationConfig(
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=as_ids(tokenizer.stop_ids),
        pad_token_id=tokenizer.pad_token_id,
        decoder_start_token_id=tokenizer.decoder_start_id,
    ).save_pretrained(folder)


def save_companions_for_others(tokenizer: Tokenizer, folder: Path, *, base: ModelConfig) -> None:
    """The same for people elsewhere, who may have other versions of the libraries: generation_config.json is the base's
    own, with the ids that an answer ends on.
    """
    save_for_others(tokenizer, folder)
    described = AutoConfig.from_pretrained(
        locate(base.name_or_path), revision=base.revision, trust_remote_code=base.trust_remote_code
    )
    settings = written_generation(own_generation(base, described), tokenizer)
    write_settings(settings, folder / GENERATION_CONFIG_NAME)
