"""Adapters: attaching, saving, loading and merging LoRA through peft."""
