"""Kernels that do in one pass over memory what the operations beside them do in several, on GPUs that have Triton."""
