"""Whether the base has an embedding for every token of the rows: a tokenizer may know more than its base."""

from typing import Any

from fledge.data.store import TokenStore
from fledge.errors import ModelError
from fledge.models.tokenizer import Tokenizer


def check_known(store: TokenStore, model: Any, *, tokenizer: Tokenizer, base: str) -> None:
    """Raises ModelError, which names the first row with such a token, where the base has no embedding for one."""
    size = model.get_base_model().get_input_embeddings().weight.shape[0]
    found = store.beyond(size)
    if found is None:
        return
    row, token = found
    text = tokenizer.hf.convert_ids_to_tokens(token)
    what = f"{store.where(row)} has the token {text!r} ({token}), and this base has embeddings for {size} tokens"
    cure = "put the base's own tokenizer beside it, or leave the token out of the rows"
    raise ModelError(what, where=base, cure=cure)
