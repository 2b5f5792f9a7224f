"""The nearest known name to one that is not known."""

import difflib
from collections.abc import Iterable

# Names that other tools use for what the recipe calls otherwise.
_OTHER_NAMES = {
    "alpha": "lora_alpha",
    "batch_size": "global_batch_size",
    "betas": "adam_betas",
    "dropout": "lora_dropout",
    "epochs": "num_epochs",
    "eps": "adam_eps",
    "gradient_clip_val": "max_grad_norm",
    "lora_dim": "r",
    "lora_r": "r",
    "lora_rank": "r",
    "lr": "learning_rate",
    "lr_scheduler_type": "lr_scheduler",
    "max_seq_length": "max_length",
    "num_train_epochs": "num_epochs",
    "output_dir": "dir",
    "per_device_train_batch_size": "micro_batch_rows",
    "pretrained_model_name_or_path": "name_or_path",
    "rank": "r",
    "report_to": "trackers",
    "save_steps": "save_every_steps",
    "save_total_limit": "keep_checkpoints",
    "scheduler": "lr_scheduler",
    "torch_dtype": "dtype",
}


def same_name(name: str, known: Iterable[str]) -> str | None:
    """The one of `known` that is `name`, or that other tools call `name`."""
    other = _OTHER_NAMES.get(name.lower(), name)
    return other if other in known else None


def nearest_name(name: str, known: Iterable[str]) -> str | None:
    """The one of `known` that `name` most likely means, or None where nothing is near."""
    names = list(known)
    same = same_name(name, names)
    if same:
        return same
    by_folded = {candidate.lower().replace("-", "_"): candidate for candidate in names}
    matches = difflib.get_close_matches(name.lower().replace("-", "_"), list(by_folded), n=1, cutoff=0.6)
    return by_folded[matches[0]] if matches else None
