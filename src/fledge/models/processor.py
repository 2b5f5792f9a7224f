"""The files that a base for text and images brings for its processor: how images are read, and a chat template."""

import json
import shutil
from pathlib import Path

from transformers.utils import (
    CHAT_TEMPLATE_FILE,
    IMAGE_PROCESSOR_NAME,
    LEGACY_PROCESSOR_CHAT_TEMPLATE_FILE,
    PROCESSOR_NAME,
    VIDEO_PROCESSOR_NAME,
)

from fledge.config.model import ModelConfig
from fledge.errors import ModelError
from fledge.models.own_files import own_file

_FILES = (PROCESSOR_NAME, IMAGE_PROCESSOR_NAME, VIDEO_PROCESSOR_NAME)


def copy_processor(base: ModelConfig, folder: Path) -> None:
    """Put the base's processor files beside a merged model, byte for byte; a text base has none.

    A chat template of the processor's own is left where it is: the tokenizer's, which was trained with, is what both
    read. Only where the export has none is it copied.
    """
    names = [*_FILES, *([] if (folder / CHAT_TEMPLATE_FILE).exists() else [LEGACY_PROCESSOR_CHAT_TEMPLATE_FILE])]
    for name in names:
        found = own_file(base, name)
        if found is not None:
            shutil.copyfile(found, folder / name)


def processor_template(base: ModelConfig) -> str | None:
    """The chat template that lies in a file of the processor's own, where the tokenizer may have none."""
    found = own_file(base, LEGACY_PROCESSOR_CHAT_TEMPLATE_FILE)
    if found is None:
        return None
    try:
        template = json.loads(found.read_text(encoding="utf-8"))["chat_template"]
    except (ValueError, KeyError, TypeError) as error:
        what = f"the processor's chat template cannot be read: {error!r}"
        raise ModelError(what, where=str(found), cure="fetch the base again, all of its files") from error
    return template if isinstance(template, str) else None
