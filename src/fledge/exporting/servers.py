"""What servers that put adapters on a base cannot load of one; facts from vLLM's sources and issues, not run here."""

from collections.abc import Mapping
from typing import Any

_UNSERVED = {
    "trainable_token_indices": "rows for tokens",
    "modules_to_save": "modules that were trained whole",
    "use_dora": "DoRA's magnitudes",
}
"""By the key of adapter_config.json. vLLM calls them an "unsupported LoRA weight", allows modules_to_save only where it
is None, and refuses DoRA."""


def remarks_of(settings: Mapping[str, Any]) -> tuple[str, ...]:
    """What a person should know of an adapter with these settings who wants to serve it without merging."""
    found = [f"{what} ({name})" for name, what in _UNSERVED.items() if settings.get(name)]
    if not found:
        return ()
    what = f"this adapter has {' and '.join(found)}, which vLLM does not load from an adapter"
    return (f"{what}: for servers write the merged model, --to hf or --to gguf",)
