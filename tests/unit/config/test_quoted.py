"""What libraries say of an error is told without Python arguments, and its cure names an option."""

import pytest

from fledge.config.quoted import cure_of, said
from tests.house.test_cures import PYTHON_ARGUMENT, unknown_keys

SAID = {
    "The repository x/y contains custom code which must be executed to correctly load the model. You can inspect the "
    "repository content at https://hf.co/x/y .\n Please pass the argument `trust_remote_code=True` to allow custom "
    "code to be run.": "model.trust_remote_code: true",
    "x is a gated repository. Make sure to request access at https://huggingface.co/x and pass a token having "
    "permission to this repo either by logging in with `hf auth login` or by passing `token=<your_token>`.": "HF_TOKEN",
    "v9 is not a valid git identifier (branch name, tag name or commit id) that exists for this model "
    "name.": "model.revision",
    "We couldn't connect to 'https://huggingface.co' to load the files.": "HF_HUB_OFFLINE",
    "The checkpoint you are trying to load has model type `q` but Transformers does not recognize this architecture. "
    "You can update Transformers with the command `pip install --upgrade transformers`.": "use a base of a kind",
    "x is not a local folder and is not a valid model identifier listed on 'https://huggingface.co/models'\nIf this is "
    "a private repository, make sure to pass a token having permission to this repo either by logging in with `hf auth "
    "login` or by passing `token=<your_token>`": "HF_TOKEN",
    "Error no file named model.safetensors found in directory /base.": "fetch the base again",
}


@pytest.mark.parametrize(("text", "cure"), SAID.items())
def test_an_error_of_a_library_is_told_in_the_recipes_words(text: str, cure: str) -> None:
    error = OSError(text)
    assert cure in cure_of(error) and not unknown_keys(cure_of(error))
    assert not PYTHON_ARGUMENT.search(said(error)) and "pip install" not in said(error)
    assert said(error) and "\n" not in said(error)


def test_what_no_table_knows_is_told_as_it_is() -> None:
    assert said(ValueError("the disk is full")) == "the disk is full"
    assert cure_of(ValueError("the disk is full"), otherwise="free some") == "free some"
    assert said(ValueError("")) == "ValueError"
    assert said(ValueError("Use from_pretrained('x', use_fast=False).")) == "ValueError"
    assert len(said(ValueError("word " * 1000))) <= 320
