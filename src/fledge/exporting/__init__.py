"""What others get: adapters and merged models, written, read back, compared, and certified."""
