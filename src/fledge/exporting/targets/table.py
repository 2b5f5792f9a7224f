"""The kinds of exports: a line each."""

from fledge.exporting.targets.adapter import adapter_again, write_adapter
from fledge.exporting.targets.draft import Target
from fledge.exporting.targets.gguf import FORMATS as GGUF_FORMATS
from fledge.exporting.targets.gguf import gguf_again, write_gguf_file
from fledge.exporting.targets.hf import FORMATS, hf_again, write_hf

TARGETS: dict[str, Target] = {
    "adapter": Target(write_adapter, adapter_again, formats=(), is_merged=False),
    "hf": Target(write_hf, hf_again, formats=FORMATS, is_merged=True),
    "gguf": Target(
        write_gguf_file,
        gguf_again,
        formats=GGUF_FORMATS,
        is_merged=True,
        own_format=lambda trained: "bf16" if trained == "bfloat16" else "f16",
    ),
}
