"""Writes a whole model with its tokenizer as one GGUF file, as llama.cpp and what is built on it read."""
