"""The devices that windows run on: their kinds, slots and names, and the host's memory.

Not here: scheduling and processes. NVML is called below `nvidia/` only.
Start with `kind`, which says what a kind of device does; `slots` combines their devices and the configuration.
"""
