"""Proves, on the model at hand, that packed documents do not see each other before anything is trained on them."""

import torch
from transformers import PreTrainedModel

from fledge.errors import ModelError
from fledge.models.documents import Documents

LENGTHS = (5, 9, 3)
MOST_OF_A_LEAK = 0.1
"""Packed logits may differ from those of each document alone by this share of what a leak would change."""


def prove_apart(model: PreTrainedModel, documents: Documents, *, takes_positions: bool) -> None:
    """Compare packed logits with each document's own, within documents_apart(model).

    The yardstick is measured, not chosen: the same row with all documents in sight of each other. Costs five
    forward passes over a few tokens. Raises ModelError where the packed logits are nearer to the leak than to the
    truth, as with a model whose layers mix positions by other means than attention.
    """
    device = model.get_input_embeddings().weight.device
    generator = torch.Generator().manual_seed(0)
    vocabulary = model.get_input_embeddings().weight.shape[0]
    ids = torch.randint(0, vocabulary, (1, sum(LENGTHS)), generator=generator).to(device)
    own = torch.cat([torch.arange(length) for length in LENGTHS])[None].to(device)
    across = torch.arange(sum(LENGTHS), device=device)[None]

    def logits(part: torch.Tensor, positions: torch.Tensor, *, lengths: tuple[int, ...] | None) -> torch.Tensor:
        documents.lengths = lengths
        inputs = {"input_ids": part, "use_cache": False}
        if takes_positions:
            inputs["position_ids"] = positions
        return model(**inputs).logits[0].float()

    with torch.no_grad():
        packed = logits(ids, own, lengths=LENGTHS)
        leaked = logits(ids, across, lengths=None)
        parts = zip(ids.split(LENGTHS, dim=1), own.split(LENGTHS, dim=1), strict=True)
        alone = torch.cat([logits(part, positions, lengths=None) for part, positions in parts])
    documents.lengths = None
    distance, leak = (packed - alone).norm().item(), (leaked - alone).norm().item()
    if distance > MOST_OF_A_LEAK * leak and distance > 1e-4 * alone.norm().item():
        raise ModelError(
            f"{type(model).__name__} mixes packed rows: logits differ by {distance:.2g}, a full leak by {leak:.2g}",
            where="data.packing",
            cure="set data.packing: false",
        )
