"""Safetensors files read tensor by tensor: what the format's own library writes and reads, and nothing broken."""

import json
import struct

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from fledge.errors import ModelError
from fledge.models.tensors import DTYPES, stored_in, write_tensors

shapes = st.lists(st.integers(0, 4), max_size=3).map(tuple)


def tensor_of(shape, name):
    return (torch.randn(shape, generator=torch.Generator().manual_seed(len(shape))) * 9).to(DTYPES[name])


@settings(max_examples=40, deadline=None)
@given(st.dictionaries(st.text(min_size=1, max_size=8), st.tuples(shapes, st.sampled_from(sorted(DTYPES))), max_size=5))
def test_what_is_written_is_what_the_library_reads_and_the_other_way_round(tmp_path_factory, chosen):
    folder = tmp_path_factory.mktemp("tensors")
    chosen.pop("__metadata__", None)
    tensors = {name: tensor_of(shape, dtype) for name, (shape, dtype) in chosen.items()}
    write_tensors(tensors, folder / "ours")
    save_file(tensors, folder / "theirs", metadata={"format": "pt"})
    for found in (
        load_file(folder / "ours"),
        *({n: s.read() for n, s in stored_in(folder / f).items()} for f in ("ours", "theirs")),
    ):
        assert set(found) == set(tensors)
        for name, tensor in tensors.items():
            assert (found[name].dtype, found[name].shape) == (tensor.dtype, tensor.shape)
            assert found[name].reshape(-1).view(torch.uint8).tolist() == tensor.reshape(-1).view(torch.uint8).tolist()


def written(folder, header, data=b"\0" * 8):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path = folder / "x.safetensors"
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)
    return path


@pytest.mark.parametrize(
    "header",
    [
        b"",
        b"[1, 2]",
        b"{nonsense",
        b'{"a": 3}',
        {"a": {"dtype": "F32", "shape": [2]}},
        {"a": {"dtype": "F99", "shape": [2], "data_offsets": [0, 8]}},
        {"a": {"dtype": "F32", "shape": [3], "data_offsets": [0, 8]}},
        {"a": {"dtype": "F32", "shape": [2], "data_offsets": [-8, 0]}},
        {"a": {"dtype": "F32", "shape": [-1, -2], "data_offsets": [0, 8]}},
        {"a": {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]}},
        {"a": {"dtype": "F32", "shape": [2.0], "data_offsets": [0, 8]}},
        {"a": {"dtype": "F32", "shape": [2], "data_offsets": [0.0, 8.0]}},
    ],
    ids=str,
)
def test_a_header_that_is_none_is_refused_with_the_files_name(tmp_path, header):
    path = written(tmp_path, header)
    with pytest.raises(ModelError, match=r"x\.safetensors"):
        stored_in(path)


def test_a_header_longer_than_the_format_allows_or_the_file_is_refused(tmp_path):
    path = tmp_path / "x.safetensors"
    for content in (b"", b"\1\2", struct.pack("<Q", 1 << 40), struct.pack("<Q", 500) + b"{}"):
        path.write_bytes(content)
        with pytest.raises(ModelError, match=r"x\.safetensors"):
            stored_in(path)


def test_a_file_that_was_cut_after_it_was_looked_at_is_told(tmp_path):
    path = tmp_path / "x.safetensors"
    save_file({"a": torch.ones(100)}, path)
    stored = stored_in(path)["a"]
    path.write_bytes(path.read_bytes()[:-4])
    with pytest.raises(ModelError, match="ends in the middle"):
        stored.read()
