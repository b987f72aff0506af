"""Discovery of the machine's GPUs, through NVML.

`discover` looks once, at the start; changes while windows run are seen by `gpusched.devices.nvidia.sampler`.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec

from gpusched.core.model import Device, DeviceType
from gpusched.devices.kind import Discovery, Note
from gpusched.devices.nvidia.binding import LIBRARY, NoLibrary, nvml_binding, session
from gpusched.devices.nvidia.mask import Gpu, visible

#: remedy where the driver or a card fails
LOOK_AT = "look at `nvidia-smi` and `dmesg`"


def discover(mask: str | None, *, lightgbm_type: DeviceType = "gpu", root: Path = Path("/")) -> Discovery:
    """Look for GPUs under `mask`, the operator's `CUDA_VISIBLE_DEVICES` (None: not set). No GPU is no error.

    Each has `lightgbm_type`, and no slots yet, except that a card in EXCLUSIVE_PROCESS mode has one. The calls into
    NVML may block for seconds while the driver starts.
    """
    try:
        with session() as nvml:
            try:
                return _discovered(nvml, mask, lightgbm_type)
            except Exception as error:
                return _none(Note(f"the NVIDIA driver fails ({error}): GPUs cannot be used", LOOK_AT))
    except ImportError:
        return _none(Note("the nvidia-ml-py package is not installed: GPUs cannot be used"))
    except Exception as error:
        return _none(_why_no_nvml(error, root))


class CudaAbilities(msgspec.Struct, frozen=True, kw_only=True):
    """The CUDA programs that the driver and its GPUs can run."""

    #: compute capability (major, minor) by PCI bus id, of the GPUs that report it
    capabilities: dict[str, tuple[int, int]] = {}
    #: the newest CUDA version (major, minor) whose programs the driver runs; None: not known
    newest: tuple[int, int] | None = None


def cuda_abilities() -> CudaAbilities:
    """Ask all GPUs of the machine; both fields stay empty if NVML does not work."""
    with contextlib.suppress(Exception), session() as nvml:  # `discover` says why it fails
        capabilities = {}
        for index in range(nvml.nvmlDeviceGetCount()):
            handle = _ask(nvml, nvml.nvmlDeviceGetHandleByIndex, index)
            capability = handle and _ask(nvml, nvml.nvmlDeviceGetCudaComputeCapability, handle)
            if capability:
                capabilities[_bus_id(_pci_address(nvml, handle))] = (capability[0], capability[1])
        version = _ask(nvml, nvml.nvmlSystemGetCudaDriverVersion) or 0
        newest = (version // 1000, version % 1000 // 10) if version else None
        return CudaAbilities(capabilities=capabilities, newest=newest)
    return CudaAbilities()


# -- looking for GPUs --------------------------------------------------------------------------------------------------


class _Part(msgspec.Struct, frozen=True):
    """A unit to which a window can be pinned: a whole GPU or a MIG instance."""

    name: str
    memory_total_bytes: int | None


class _Card(msgspec.Struct, frozen=True, kw_only=True):
    """A physical GPU. `usable` holds its parts by UUID; it is empty if the card's mode forbids its use."""

    uuid: str
    usable: dict[str, _Part]
    exclusive: bool
    cpus: tuple[int, ...]
    accounting: bool
    pci_bus_id: str
    modes: str

    @property
    def instances(self) -> tuple[str, ...] | None:
        return None if self.uuid in self.usable else tuple(self.usable)


def _none(*notes: Note) -> Discovery:
    return Discovery(devices=(), notes=notes)


def _why_no_nvml(error: Exception, root: Path) -> Note:
    # NVML has no error code for this: it answers that the driver is not loaded, or with an unknown error.
    if (root / "proc/driver/nvidia/version").exists() and not (root / "dev/nvidiactl").exists():
        return Note(
            "the NVIDIA driver is loaded but /dev/nvidiactl is not there, as in a container that was started without"
            " its device nodes: GPUs cannot be used",
            "start it with `--gpus all`",
        )
    if isinstance(error, NoLibrary):
        return Note(
            f"no NVIDIA driver is installed here ({LIBRARY} was not found): GPUs cannot be used",
            "in a container, start it with the NVIDIA runtime (`--gpus all`)",
        )
    nvml = nvml_binding()
    match getattr(error, "value", None):
        case nvml.NVML_ERROR_DRIVER_NOT_LOADED:
            return Note("the NVIDIA driver is installed but not loaded: GPUs cannot be used", "try `modprobe nvidia`")
        case nvml.NVML_ERROR_LIB_RM_VERSION_MISMATCH:
            return Note(
                "the NVIDIA driver's library and kernel module are of different versions, as after an update:"
                " GPUs cannot be used",
                # a process keeps the library that it has loaded
                "reload the module or restart the machine, then restart the daemon if it ran all the while",
            )
        case nvml.NVML_ERROR_NO_PERMISSION:
            return Note(
                "no permission to use the NVIDIA driver: GPUs cannot be used",
                "check the mode of /dev/nvidiactl and /dev/nvidia*",
            )
    return Note(f"the NVIDIA driver cannot be started ({error}): GPUs cannot be used", LOOK_AT)


def _discovered(nvml: Any, mask: str | None, lightgbm_type: DeviceType) -> Discovery:
    cards, notes = _inventory(nvml)
    complete = all(cards)
    if not any(cards):
        nothing = Note("the NVIDIA driver reports no GPU that can be used")
        return Discovery(devices=(), notes=(*notes, nothing), complete=complete)
    shown = _shown(mask, cards, notes)
    driver = _ask(nvml, nvml.nvmlSystemGetDriverVersion)
    devices = tuple(
        Device(
            id=uuid,
            name=card.usable[uuid].name,
            lightgbm_type=lightgbm_type,
            capacity=1 if card.exclusive else 0,
            cpus=card.cpus,
            memory_total_bytes=card.usable[uuid].memory_total_bytes,
            accounting=card.accounting,
            pci_bus_id=card.pci_bus_id,
            driver=driver or "",
            modes=card.modes,
        )
        for uuid in shown
        for card in cards
        if card and uuid in card.usable
    )
    answered = frozenset() if complete else frozenset(card.pci_bus_id for card in cards if card) - {""}
    return Discovery(devices=devices, notes=tuple(notes), driver=driver, complete=complete, answered=answered)


def _inventory(nvml: Any) -> tuple[list[_Card | None], list[Note]]:
    """Every GPU, in PCI order, None for one that does not answer; notes about them."""
    cards: list[tuple[tuple[int, ...], _Card | None]] = []
    notes: list[Note] = []
    unpersistent = []
    address: tuple[int, ...] = ()
    for index in range(nvml.nvmlDeviceGetCount()):
        try:
            handle = nvml.nvmlDeviceGetHandleByIndex(index)
            name = nvml.nvmlDeviceGetName(handle)
            card = _card(nvml, handle, f"GPU {index} ({name})", name, notes)
        except nvml.NVMLError as error:
            notes.append(Note(f"GPU {index} does not answer ({error}): it is not used", LOOK_AT))
            cards.append((address, None))  # behind the one before it, as NVML has them
            continue
        address = _pci_address(nvml, handle) or (0, 0, 0, index)
        cards.append((address, card))
        if _ask(nvml, nvml.nvmlDeviceGetPersistenceMode, handle) == nvml.NVML_FEATURE_DISABLED:
            unpersistent.append(str(index))
    if unpersistent:
        where = f"persistence mode is off on GPU {', '.join(unpersistent)}: windows may wait seconds for the driver"
        notes.append(Note(where, "`nvidia-smi -pm 1` or nvidia-persistenced turns it on"))
    return [card for _, card in sorted(cards, key=lambda item: item[0])], notes


def _shown(mask: str | None, cards: list[_Card | None], notes: list[Note]) -> tuple[str, ...]:
    """The UUIDs that the mask leaves of those that are usable; sentences about it are added to `notes`."""
    shown = visible(mask, [Gpu(uuid=card.uuid, instances=card.instances) if card else Gpu(uuid="") for card in cards])
    if shown.problem:
        notes.append(Note(f"CUDA_VISIBLE_DEVICES={mask}: {shown.problem}", "`nvidia-smi -L` lists what there is"))
    if not shown.uuids and any(card and card.usable for card in cards):
        notes.append(Note(f"CUDA_VISIBLE_DEVICES={mask} hides every GPU from the pool"))
    return shown.uuids


def _card(nvml: Any, handle: Any, title: str, name: str, notes: list[Note]) -> _Card:
    uuid = nvml.nvmlDeviceGetUUID(handle)
    mode = _ask(nvml, nvml.nvmlDeviceGetComputeMode, handle)
    mig = _ask(nvml, nvml.nvmlDeviceGetMigMode, handle)
    usable: dict[str, _Part] = {}
    if mode == nvml.NVML_COMPUTEMODE_PROHIBITED:
        notes.append(Note(f"{title} is in PROHIBITED compute mode: it is not used", "`nvidia-smi -c DEFAULT` opens it"))
    elif mig is None or mig[0] != nvml.NVML_DEVICE_MIG_ENABLE:
        usable[uuid] = _Part(name, _total_memory(nvml, handle))
    else:
        for part in _instances(nvml, handle):
            usable[nvml.nvmlDeviceGetUUID(part)] = _Part(
                _ask(nvml, nvml.nvmlDeviceGetName, part) or name, _total_memory(nvml, part)
            )
        if not usable:
            without = f"{title} is in MIG mode and has no instances: it is not used"
            notes.append(Note(without, "`nvidia-smi mig -cgi … -C` makes them"))
    exclusive = mode == nvml.NVML_COMPUTEMODE_EXCLUSIVE_PROCESS
    if exclusive:
        one_slot = f"{title} is in EXCLUSIVE_PROCESS compute mode: it gets one slot"
        notes.append(Note(one_slot, "`nvidia-smi -c DEFAULT` allows more"))
    return _Card(
        uuid=uuid,
        usable=usable,
        exclusive=exclusive,
        cpus=_near(nvml, handle),
        accounting=_ask(nvml, nvml.nvmlDeviceGetAccountingMode, handle) == nvml.NVML_FEATURE_ENABLED,
        pci_bus_id=_bus_id(_pci_address(nvml, handle)),
        modes=_modes(nvml, handle, mode),
    )


def _modes(nvml: Any, handle: Any, compute_mode: int | None) -> str:
    """Persistence and compute mode, as far as the card tells."""
    persistence = _ask(nvml, nvml.nvmlDeviceGetPersistenceMode, handle)
    modes = [] if persistence is None else [f"persistence {'on' if persistence else 'off'}"]
    if compute_mode == nvml.NVML_COMPUTEMODE_EXCLUSIVE_PROCESS:
        modes.append("compute mode exclusive process")
    elif compute_mode == nvml.NVML_COMPUTEMODE_DEFAULT:
        modes.append("compute mode default")
    return ", ".join(modes)


def _pci_address(nvml: Any, handle: Any) -> tuple[int, ...] | None:
    """Domain, bus and device."""
    pci = _ask(nvml, nvml.nvmlDeviceGetPciInfo, handle)
    return (pci.domain, pci.bus, pci.device) if pci else None


def _bus_id(address: tuple[int, ...] | None) -> str:
    return "{:04x}:{:02x}:{:02x}.0".format(*address) if address else ""


def _instances(nvml: Any, handle: Any) -> Iterator[Any]:
    """The MIG instances of a GPU; their indexes may have gaps."""
    for index in range(_ask(nvml, nvml.nvmlDeviceGetMaxMigDeviceCount, handle) or 0):
        with contextlib.suppress(nvml.NVMLError):
            yield nvml.nvmlDeviceGetMigDeviceHandleByIndex(handle, index)


def _total_memory(nvml: Any, handle: Any) -> int | None:
    memory = _ask(nvml, nvml.nvmlDeviceGetMemoryInfo, handle)
    return memory.total or None if memory else None


def _near(nvml: Any, handle: Any) -> tuple[int, ...]:
    """The cores near a GPU that this process may run on; empty if all are near, or if NVML does not know."""
    allowed = os.sched_getaffinity(0)
    words = max(allowed) // 64 + 1
    masks = _ask(nvml, nvml.nvmlDeviceGetCpuAffinity, handle, words) or ()
    near = {64 * word + bit for word, mask in enumerate(masks) for bit in range(64) if mask >> bit & 1} & allowed
    return () if near == allowed else tuple(sorted(near))


def _ask(nvml: Any, call: Callable[..., Any], *arguments: Any) -> Any:
    """The result of an NVML call, or None if it fails."""
    try:
        return call(*arguments)
    except nvml.NVMLError:
        return None
