"""NVIDIA's GPUs, as NVML and CUDA's environment variables present them.

Not here: other kinds of device, and any decision: a value that a card does not report is absent, never zero.
Start with `readings`, the thread that samples; `mask` reads CUDA_VISIBLE_DEVICES as CUDA does.
"""
