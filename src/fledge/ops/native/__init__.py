"""Kernels in C++ for the CPU: compiled where they run, each the fast form of the operation of its name in ops."""
