"""Room in the embedding and the head for tokens that the base has never seen."""

from dataclasses import dataclass

import torch
from transformers import PreTrainedModel


@dataclass(frozen=True, slots=True)
class NewRows:
    """What must be trained so that new tokens can be read and written, in peft's words."""

    trainable_token_indices: dict[str, list[int]]
    modules_to_save: tuple[str, ...]
    """A head with a bias is trained whole: peft's layer for single rows leaves the bias out."""


def make_room(model: PreTrainedModel, new_tokens: tuple[int, ...]) -> NewRows:
    """Enlarge the embedding for new ids where needed and start their rows at the mean of the rows before them.

    So no logit stands out at the start, and the base is the same whenever this is done to it.
    """
    if max(new_tokens) >= model.get_input_embeddings().weight.shape[0]:
        model.resize_token_embeddings(max(new_tokens) + 1, mean_resizing=False)
        model.requires_grad_(False)
    embedding, head = model.get_input_embeddings(), model.get_output_embeddings()
    names = {module: name.rsplit(".", 1)[-1] for name, module in model.named_modules()}
    rows, whole = {names[embedding]: list(new_tokens)}, []
    _start_at_mean(embedding.weight, new_tokens)
    if head is not None and head.weight is not embedding.weight:
        _start_at_mean(head.weight, new_tokens)
        if getattr(head, "bias", None) is None:
            rows[names[head]] = list(new_tokens)
        else:
            _start_at_mean(head.bias, new_tokens)
            whole.append(names[head])
    return NewRows(rows, tuple(whole))


def _start_at_mean(weight: torch.Tensor, new_tokens: tuple[int, ...]) -> None:
    weight.data[list(new_tokens)] = weight.data[: min(new_tokens)].float().mean(dim=0).to(weight.dtype)
