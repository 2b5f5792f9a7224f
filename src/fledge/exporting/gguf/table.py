"""Which family a model belongs to, by the type of the model."""

from transformers import (
    BloomForCausalLM,
    FalconForCausalLM,
    Gemma2ForCausalLM,
    Gemma3ForCausalLM,
    GemmaForCausalLM,
    GPT2LMHeadModel,
    GPTNeoXForCausalLM,
    GraniteForCausalLM,
    LlamaForCausalLM,
    MistralForCausalLM,
    Olmo2ForCausalLM,
    Phi3ForCausalLM,
    PhiForCausalLM,
    PreTrainedModel,
    Qwen2ForCausalLM,
    Qwen3ForCausalLM,
    SmolLM3ForCausalLM,
    Starcoder2ForCausalLM,
    T5ForConditionalGeneration,
)

from fledge.exporting.gguf.bloom import BLOOM
from fledge.exporting.gguf.falcon import FALCON
from fledge.exporting.gguf.family import Family
from fledge.exporting.gguf.gemma import GEMMA, GEMMA2
from fledge.exporting.gguf.gemma3 import GEMMA3
from fledge.exporting.gguf.gpt import GPT2, GPT_NEOX
from fledge.exporting.gguf.granite import GRANITE
from fledge.exporting.gguf.llama import LLAMA, QWEN2
from fledge.exporting.gguf.olmo2 import OLMO2
from fledge.exporting.gguf.phi import PHI2
from fledge.exporting.gguf.phi3 import PHI3
from fledge.exporting.gguf.qwen3 import QWEN3
from fledge.exporting.gguf.smollm3 import SMOLLM3
from fledge.exporting.gguf.starcoder2 import STARCODER2
from fledge.exporting.gguf.t5 import T5

FAMILIES: dict[type[PreTrainedModel], Family] = {
    BloomForCausalLM: BLOOM,
    FalconForCausalLM: FALCON,
    GPT2LMHeadModel: GPT2,
    GPTNeoXForCausalLM: GPT_NEOX,
    GemmaForCausalLM: GEMMA,
    Gemma2ForCausalLM: GEMMA2,
    Gemma3ForCausalLM: GEMMA3,
    GraniteForCausalLM: GRANITE,
    LlamaForCausalLM: LLAMA,
    MistralForCausalLM: LLAMA,
    Olmo2ForCausalLM: OLMO2,
    PhiForCausalLM: PHI2,
    Phi3ForCausalLM: PHI3,
    Qwen2ForCausalLM: QWEN2,
    Qwen3ForCausalLM: QWEN3,
    SmolLM3ForCausalLM: SMOLLM3,
    Starcoder2ForCausalLM: STARCODER2,
    T5ForConditionalGeneration: T5,
}
