"""The devices that windows run on: discovery, slots, names, and readings of GPUs and of the host.

Not here: scheduling and processes. NVML is called below `nvidia/` only.
Start with `slots`, which turns what discovery found and the configuration says into the pool's devices.
"""
