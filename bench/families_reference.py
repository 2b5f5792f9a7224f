"""The reference of bench/families.py: plain transformers and peft, one row at a time, nothing of Fledge's arithmetic.

Which rows a step takes and their ids are Fledge's, read again from the run's own recipe; so is the adapter's start.
"""

import math
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model, set_peft_model_state_dict
from safetensors.torch import load_file
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForImageTextToText, AutoModelForSeq2SeqLM
from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES
from transformers.models.llama4.modeling_llama4 import Llama4ForConditionalGeneration

STARTS = "decoder_start_token_id"


@dataclass(frozen=True, slots=True)
class PlainRow:
    """One row: ids and, of a causal base, which of them are trained; of a pair, the source and the target."""

    ids: tuple[int, ...]
    trained: tuple[bool, ...]


@dataclass(frozen=True, slots=True)
class Schedule:
    """What the recipe says of the optimiser."""

    learning_rate: float
    warmup_steps: int
    r: int
    lora_alpha: float


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a training came to."""

    losses: tuple[float, ...]
    grad_norms: tuple[float, ...]
    validation: float


class Plain:
    """A model that computes every row as if it were the first one it sees."""

    def __init__(self, base: Path, *, start: Path | None, adapter: Path | None, settings: Schedule) -> None:
        self.config = AutoConfig.from_pretrained(base)
        self.is_pair = bool(self.config.is_encoder_decoder)
        model = _auto(self.config).from_pretrained(base, config=_whole(self.config), dtype=torch.float32)
        if isinstance(model, Llama4ForConditionalGeneration):  # transformers 5.24 computes nothing with it
            model.language_model.register_forward_hook(_lend_no_images)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self.model = _adapted(model, start) if start else _loaded(model, adapter)
        self.model.eval()
        self._fresh = _states(self.model)

    def loss(self, row: PlainRow) -> torch.Tensor:
        """The sum of the row's token losses, in float32, of a fresh state."""
        for module, buffers, values in self._fresh:
            for name, value in buffers.items():
                module._buffers[name] = value.clone()
            module.__dict__.update(values)
        if self.is_pair:
            return self._pair_loss(row)
        logits = self._logits(input_ids=torch.tensor([row.ids]))
        kept = torch.tensor(row.trained[1:])
        return torch.nn.functional.cross_entropy(
            logits[0, :-1][kept].float(), torch.tensor(row.ids[1:])[kept], reduction="sum"
        )

    def _pair_loss(self, row: PlainRow) -> torch.Tensor:
        stop = row.trained.index(True)
        target = row.ids[stop:]
        starts = [getattr(self.config, name, None) for name in (STARTS, "bos_token_id", "pad_token_id")]
        start = next(value for value in starts if value is not None)
        inputs = torch.tensor([[start, *target[:-1]]])
        logits = self._logits(input_ids=torch.tensor([row.ids[:stop]]), decoder_input_ids=inputs)
        return torch.nn.functional.cross_entropy(logits[0].float(), torch.tensor(target), reduction="sum")

    def _logits(self, **inputs: torch.Tensor) -> torch.Tensor:
        self.model.get_base_model().config.use_cache = False
        return self.model.get_base_model()(**inputs).logits

    def mean_loss(self, rows: Sequence[PlainRow]) -> float:
        """The mean over all trained tokens."""
        with torch.no_grad():
            return sum(self.loss(row).item() for row in rows) / _supervised(rows)


def _auto(config: Any) -> Any:
    """The automatic class of a kind of model: of the class whose weights the base says it has."""
    if config.is_encoder_decoder:
        return AutoModelForSeq2SeqLM
    images = MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES.get(config.model_type)
    return AutoModelForImageTextToText if images in (config.architectures or ()) else AutoModelForCausalLM


def _whole(config: Any) -> Any:
    """The configuration of a base that comes quantised asks for whole weights; that of another is as it is."""
    if getattr(config, "quantization_config", None) is not None:
        config.quantization_config = {**config.quantization_config, "dequantize": True}
    return config


def _lend_no_images(_module: Any, _given: Any, out: Any) -> None:
    """The output of Llama 4's language model lacks what its class for text and images asks of it."""
    if not hasattr(out, "image_outputs"):
        out.image_outputs = None


def _adapted(model: Any, start: Path) -> Any:
    """The modules that Fledge's adapter names, then the weights that it began with, none missing and none left over."""
    config = LoraConfig.from_pretrained(str(start))
    config.inference_mode = False
    model = get_peft_model(model, config)
    begun = load_file(start / "adapter_model.safetensors")
    found = set_peft_model_state_dict(model, begun)
    missing = [name for name in found.missing_keys if "lora_" in name]
    if missing or found.unexpected_keys:
        raise ValueError(f"the start does not fit: missing {missing[:3]}, left over {list(found.unexpected_keys)[:3]}")
    return model


def _loaded(model: Any, adapter: Path | None) -> Any:
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        adapted = PeftModel.from_pretrained(model, str(adapter))
    missing = [str(each.message) for each in told if "missing adapter keys" in str(each.message)]
    if missing:
        raise ValueError(f"the saved adapter is not complete: {missing[0][:200]}")
    return adapted


def _states(model: Any) -> list[tuple[Any, dict[str, torch.Tensor], dict[str, Any]]]:
    """What modules may keep from one row to the next: buffers and plain attributes."""
    kinds = (int, float, type(None), torch.Tensor)
    found = []
    for module in model.modules():
        buffers = {name: value.clone() for name, value in module._buffers.items() if value is not None}
        values = {name: value for name, value in vars(module).items() if isinstance(value, kinds)}
        if buffers or values:
            found.append((module, buffers, values))
    return found


def train(plain: Plain, steps: Sequence[Sequence[PlainRow]], settings: Schedule) -> Iterator[tuple[float, float]]:
    """Loss and gradient norm of each step: the mean over the step's trained tokens, AdamW, cosine, clipping at 1."""
    trained = [parameter for _, parameter in sorted(plain.model.named_parameters()) if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=0.0, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.0)
    for number, rows in enumerate(steps, 1):
        total, supervised = 0.0, _supervised(rows)
        for row in rows:
            loss = plain.loss(row)
            (loss / supervised).backward()
            total += loss.item()
        norm = torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.param_groups[0]["lr"] = _rate(number, len(steps), settings)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        yield total / supervised, norm.item()


def _rate(step: int, total: int, settings: Schedule) -> float:
    warm, peak = settings.warmup_steps, settings.learning_rate
    if step <= warm:
        return peak * step / warm
    return peak * 0.5 * (1 + math.cos(math.pi * (step - warm - 1) / (total - warm)))


def _supervised(rows: Sequence[PlainRow]) -> int:
    """Trained tokens that something is predicted from; in a pair none is the first id."""
    return sum(sum(row.trained[1:]) for row in rows)


def outcome(
    base: Path,
    start: Path,
    *,
    steps: Sequence[Sequence[PlainRow]],
    held_out: Sequence[PlainRow],
    settings: Schedule,
    is_nudged: bool = False,
) -> Outcome:
    """The whole training. `is_nudged`: every weight of the base is moved by one unit in the last place, up or down."""
    plain = Plain(base, start=start, adapter=None, settings=settings)
    if is_nudged:
        _nudge(plain.model)
    done = list(train(plain, steps, settings))
    return Outcome(tuple(loss for loss, _ in done), tuple(norm for _, norm in done), plain.mean_loss(held_out))


def _nudge(model: Any) -> None:
    dice = torch.Generator().manual_seed(1)
    for parameter in model.parameters():
        up = torch.rand(parameter.shape, generator=dice) < 0.5
        parameter.data = torch.nextafter(parameter.data, torch.where(up, torch.inf, -torch.inf))


def saved_loss(base: Path, adapter: Path, held_out: Sequence[PlainRow], settings: Schedule) -> float:
    """The validation loss of a saved adapter, loaded by plain peft, row by row."""
    return Plain(base, start=None, adapter=adapter, settings=settings).mean_loss(held_out)
