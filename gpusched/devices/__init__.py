"""The devices that windows run on: discovery, slots, names, and readings of GPUs and of the host.

Not here: scheduling and processes. NVML is called below `nvidia/` only, through `nvidia/binding`.
Start with `slots`, which combines discovery's GPUs and the configuration into the pool's devices.
"""
