"""Runs by itself, where llama_cpp is: says what llama.cpp makes of GGUF files. Fledge and torch need not be there."""

import ctypes
import json
import sys
from typing import Any

import llama_cpp
import numpy as np


@llama_cpp.llama_log_callback
def _quiet(level: int, text: bytes, data: Any) -> None:
    pass


def _open(path: str, *, only_words: bool) -> Any:
    wanted = llama_cpp.llama_model_default_params()
    wanted.n_gpu_layers, wanted.vocab_only = 0, only_words
    model = llama_cpp.llama_model_load_from_file(path.encode(), wanted)
    assert model, f"llama.cpp cannot load {path}"
    return model


def _batch(ids: list[int]) -> Any:
    batch = llama_cpp.llama_batch_init(len(ids), 0, 1)
    batch.n_tokens = len(ids)
    for place, token in enumerate(ids):
        batch.token[place], batch.pos[place], batch.logits[place] = token, place, 1
        batch.n_seq_id[place], batch.seq_id[place][0] = 1, 0
    return batch


def logits(path: str, rows: list[list[int]], written: list[list[int]]) -> list[Any]:
    """[T,V] of each row, of an encoder-decoder those of what it has written; keys and values are kept in float32."""
    model = _open(path, only_words=False)
    width = llama_cpp.llama_vocab_n_tokens(llama_cpp.llama_model_get_vocab(model))
    wanted, found = llama_cpp.llama_context_default_params(), []
    wanted.n_ctx = wanted.n_batch = wanted.n_ubatch = 256
    wanted.n_threads = wanted.n_threads_batch = 1
    wanted.type_k = wanted.type_v = wanted.flash_attn_type = 0
    for row, answer in zip(rows, written, strict=True):
        context = llama_cpp.llama_init_from_model(model, wanted)
        assert context
        is_pair = llama_cpp.llama_model_has_encoder(model)
        if is_pair:
            assert llama_cpp.llama_encode(context, _batch(row)) == 0
        said = answer if is_pair else row
        assert llama_cpp.llama_decode(context, _batch(said)) == 0
        found.append(np.ctypeslib.as_array(llama_cpp.llama_get_logits(context), (len(said), width)).copy())
        llama_cpp.llama_free(context)
    llama_cpp.llama_model_free(model)
    return found


def _shown(vocabulary: Any, ids: list[int]) -> str:
    """What a person sees of the tokens: special ones are left out."""
    tokens, room = (llama_cpp.llama_token * len(ids))(*ids), ctypes.create_string_buffer(64 * len(ids) + 64)
    size = llama_cpp.llama_detokenize(vocabulary, tokens, len(ids), room, len(room), False, False)
    return room.raw[:size].decode(errors="replace")


def words(path: str, texts: list[str]) -> dict[str, Any]:
    """The special tokens, and each text's ids, with what the tokenizer itself puts around it and without."""
    model = _open(path, only_words=True)
    vocabulary = llama_cpp.llama_model_get_vocab(model)
    ids: dict[bool, list[list[int]]] = {True: [], False: []}
    for adds, found in ids.items():
        for text in texts:
            raw = text.encode()
            room = (llama_cpp.llama_token * (2 * len(raw) + 16))()
            size = llama_cpp.llama_tokenize(vocabulary, raw, len(raw), room, len(room), adds, True)
            found.append(list(room[:size]))
    return {
        "around": ids[True],
        "bare": ids[False],
        "shown": [_shown(vocabulary, row) for row in ids[False]],
        "ends": [
            index
            for index in range(llama_cpp.llama_vocab_n_tokens(vocabulary))
            if llama_cpp.llama_vocab_is_eog(vocabulary, index)
        ],
        "template": (llama_cpp.llama_model_chat_template(model, None) or b"").decode(),
    }


def main() -> None:
    """Answer the request on standard input: for each file its words to standard output, its logits beside it."""
    llama_cpp.llama_log_set(_quiet, None)
    llama_cpp.llama_backend_init()
    request, told = json.load(sys.stdin), {}
    for path in request["logits"]:
        np.savez(f"{path}.npz", *logits(path, request["rows"], request["written"]))
    for path in request["words"]:
        told[path] = words(path, request["texts"])
    json.dump(told, sys.stdout)


if __name__ == "__main__":
    main()
