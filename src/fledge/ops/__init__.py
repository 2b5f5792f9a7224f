"""Pure tensor functions, each fast one beside its reference."""
