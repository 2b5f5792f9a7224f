"""The machine: devices, number formats, ranks, memory, random numbers."""
