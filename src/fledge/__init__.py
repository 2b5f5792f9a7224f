"""Fledge: LoRA fine-tuning that proves what it did."""
