"""Who surveys, and who waits."""

from __future__ import annotations

import anyio
import anyio.lowlevel
import pytest
from anyio.abc import TaskGroup

from gpusched.service.surveys import MAX_SURVEYS, Surveys


class Asked:
    """Surveys that hang, by who asked for them."""

    def __init__(self, tasks: TaskGroup) -> None:
        self._tasks = tasks
        self._surveys = Surveys()
        self.at_work: list[int | None] = []

    async def __call__(self, member: int | None) -> None:
        self._tasks.start_soon(self._survey, member)
        await anyio.wait_all_tasks_blocked()

    async def _survey(self, member: int | None) -> None:
        async with self._surveys.place(member):
            self.at_work.append(member)
            await anyio.sleep_forever()


async def test_those_of_one_member_are_in_nobody_elses_way() -> None:
    async with anyio.create_task_group() as tasks:
        ask = Asked(tasks)
        for _ in range(MAX_SURVEYS):
            await ask(1001)
        await ask(1002)
        await ask(None)
        assert ask.at_work == [1001, 1002, None]
        tasks.cancel_scope.cancel()


async def test_those_of_all_members_are_in_their_way_but_not_in_the_owners() -> None:
    async with anyio.create_task_group() as tasks:
        ask = Asked(tasks)
        for member in range(MAX_SURVEYS + 1):
            await ask(member)
        for _ in range(MAX_SURVEYS + 1):
            await ask(None)
        assert ask.at_work == [*range(MAX_SURVEYS), *[None] * MAX_SURVEYS]
        tasks.cancel_scope.cancel()


@pytest.mark.parametrize("member", [1001, None])
async def test_the_next_one_begins_when_a_client_leaves(member: int | None) -> None:
    surveys, began = Surveys(), anyio.Event()

    async def survey() -> None:
        async with surveys.place(member):
            began.set()

    with anyio.CancelScope() as client:
        async with surveys.place(member):
            client.cancel()
            await anyio.lowlevel.checkpoint()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(survey)
        await began.wait()
