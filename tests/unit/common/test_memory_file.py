"""Files of memory that travel to other processes."""

from __future__ import annotations

import os

import pytest

from supervisor_sio.common import memory_file


@pytest.mark.parametrize("size", [0, 1, 3_000_000])
def test_what_is_written_is_read(size: int) -> None:
    data = os.urandom(size)
    descriptor = memory_file.write("test", data)
    try:
        copy = os.dup(descriptor)
        # Whoever has it shares the offset, which means nothing here.
        os.lseek(copy, 7, os.SEEK_SET)
        assert memory_file.read(copy, size) == data == memory_file.read(descriptor, size)
        if size:
            with pytest.raises(ValueError, match=f"^{size} bytes are over the limit of {size - 1}"):
                memory_file.read(copy, size - 1)
        os.close(copy)
    finally:
        os.close(descriptor)
