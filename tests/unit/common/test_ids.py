"""Ids that nobody can guess."""

from __future__ import annotations

import os
import re
from concurrent.futures import ThreadPoolExecutor

from supervisor_sio.common.ids import new_id

_COUNT = 2000


def test_no_id_comes_twice() -> None:
    ids = [new_id() for _ in range(_COUNT)]
    assert len(set(ids)) == _COUNT
    assert all(re.fullmatch(r"[\w-]{20}", one, re.ASCII) for one in ids)


def test_threads_get_different_ones() -> None:
    with ThreadPoolExecutor(8) as pool:
        drawn = pool.map(lambda _: [new_id() for _ in range(_COUNT)], range(8))
        assert len({one for ids in drawn for one in ids}) == 8 * _COUNT


def test_a_forked_child_draws_its_own() -> None:
    new_id()  # more are drawn, and not used
    reader, writer = os.pipe()
    pid = os.fork()
    if not pid:
        os.write(writer, " ".join(new_id() for _ in range(100)).encode())
        os._exit(0)
    os.close(writer)
    with open(reader) as pipe:
        of_child = set(pipe.read().split())
    os.waitpid(pid, 0)
    assert len(of_child) == 100
    assert not of_child & {new_id() for _ in range(100)}
