"""CUDA_VISIBLE_DEVICES as a mask. The numeric cases are those that PyTorch tests against CUDA's own parser."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpusched.devices.nvidia.mask import Gpu, visible

A = "GPU-8932f937-d72c-4106-c12f-20bd9faed9f6"
B = "GPU-8932aaaa-0000-4106-c12f-20bd9faed9f6"
C = "GPU-c0ffee00-d72c-4106-c12f-20bd9faed9f6"
M0 = "MIG-11111111-1b9e-5d9c-8ba1-11cd2a5b7f1e"
M1 = "MIG-22222222-1b9e-5d9c-8ba1-11cd2a5b7f1e"

THREE = [Gpu(uuid=A), Gpu(uuid=B), Gpu(uuid=C)]
SIX = [Gpu(uuid=f"GPU-{i}") for i in range(6)]
WITH_MIG = [Gpu(uuid=A), Gpu(uuid=C, instances=(M0, M1))]


@pytest.mark.parametrize(
    ("mask", "ordinals"),
    [
        (None, [0, 1, 2, 3, 4, 5]),
        ("", []),
        ("  ", []),
        ("-1", []),
        ("2,1", [2, 1]),
        ("0,2,-1,1", [0, 2]),
        (" 0 , 2 ", [0, 2]),
        ("0,,1", [0]),
        ("0,6,1", [0]),
        ("1gpu2,2ampere", [1, 2]),
        ("0, 1, 2, -1, 3", [0, 1, 2]),
        ("0, 1, 2, 1", []),
        ("2, +3, -0, 5", [2, 3, 0, 5]),
        ("one,two,3,4", []),
        ("4,3,two,one", [4, 3]),
        ("0,-1,0", [0]),
        ("NoDevFiles", []),
        ("99999999999999999999", []),
    ],
)
def test_ordinals(mask: str | None, ordinals: list[int]) -> None:
    assert visible(mask, SIX).uuids == tuple(SIX[i].uuid for i in ordinals)


@pytest.mark.parametrize(
    ("mask", "uuids"),
    [
        (A, [A]),
        (f"{C},{A}", [C, A]),
        (f"{C}, {A}", [C, A]),
        ("GPU-c0", [C]),
        ("GPU-8932", []),  # not unique
        ("GPU-c0,GPU-8932,GPU-8932f", [C]),
        ("GPU-8932f,GPU-8932a", [A, B]),
        ("GPU-c0,GPU-c0ffee", []),  # twice
        ("GPU-", []),
        ("GPU-dead,GPU-c0", []),
        (f"{A},1", [A]),  # the first entry decides whether the list is of ordinals or of UUIDs
        (f"1,{A}", [B]),
        (f"{A},-1,{C}", [A]),
        ("gpu-c0", []),
    ],
)
def test_uuids(mask: str, uuids: list[str]) -> None:
    assert visible(mask, THREE).uuids == tuple(uuids)


@pytest.mark.parametrize(
    ("mask", "uuids"),
    [
        (None, [A, M0, M1]),
        (M1, [M1]),
        (f"{M1},{M0},{A}", [M1, M0, A]),
        ("1", [M0, M1]),
        ("1,0", [M0, M1, A]),
        (C, [M0, M1]),
        (f"{M0},{C}", []),  # the GPU's name allows M0 for a second time
        ("MIG-1111", []),
        (f"{M0},{M0}", []),
    ],
)
def test_mig_instances(mask: str | None, uuids: list[str]) -> None:
    assert visible(mask, WITH_MIG).uuids == tuple(uuids)


def test_gpu_in_mig_mode_without_instances_has_nothing_to_use() -> None:
    assert visible(None, [Gpu(uuid=A, instances=()), Gpu(uuid=B)]).uuids == (B,)
    assert visible("1", [Gpu(uuid=A, instances=()), Gpu(uuid=B)]).uuids == (B,)


@pytest.mark.parametrize(
    ("mask", "problem"),
    [
        (None, None),
        ("", None),
        ("-1", None),
        ("0,-1", None),
        ("0,7", "'7' names no device here, so the list ends before it"),
        ("0,1,0", "'0' names a device for the second time, which hides all devices"),
    ],
)
def test_says_what_is_wrong_with_a_mask(mask: str | None, problem: str | None) -> None:
    assert visible(mask, SIX).problem == problem


@given(st.text(alphabet="0123456789,-+ GPUMIabcdef", max_size=30) | st.none())
def test_any_mask_shows_known_devices_once(mask: str | None) -> None:
    uuids = visible(mask, WITH_MIG).uuids
    assert len(set(uuids)) == len(uuids)
    assert set(uuids) <= {A, M0, M1}
