"""Bases: loading, tokenizers, facts, and attention that keeps packed rows apart."""
