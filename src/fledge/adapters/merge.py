"""Merges an adapter into its base, in float32, so that only the last rounding is lost."""

import warnings

import torch
from peft import PeftModel
from transformers import PreTrainedModel

from fledge.errors import ProofError


def merge(model: PeftModel) -> PreTrainedModel:
    """The base with the adapter's update added to its weights; `model` is used up.

    W + scale * B A, or DoRA's rescaling of it, and trained rows and modules put in the place of the base's. A head
    that is tied to the embedding stays tied. Raises ProofError where the sum is not finite.
    """
    dtypes = {parameter.dtype for parameter in model.parameters()}
    assert dtypes == {torch.float32}, f"merging in {dtypes} would round twice"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            merged = model.merge_and_unload(safe_merge=True)
    except ValueError as error:
        raise ProofError(f"the adapter cannot be merged: {error}") from error
    merged.tie_weights()
    return merged.eval()
