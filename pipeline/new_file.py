"""A new local file, written past the page cache while its content is being made.

A dataset is written once and read much later, so a copy of it in the page cache
gains nothing, and has its price: the system copies every byte, and on a virtual
machine each page that has not been used for a while comes from the host. On one
of them 2 GB and their fsync took from 2.7 to 5.6 s and most of a processor, by
direct I/O (O_DIRECT in open(2), by which the disk fetches whole blocks from
where they are) 1.0 s and a fourteenth of one. What cannot go so goes the usual
way: the end of a file, and all of it where the file system refuses.
"""

import contextlib
import errno
import fcntl
import mmap
import os
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

_BLOCK_BYTES = 4 << 20  # Of each of two blocks; a multiple of whatever disks and file systems align to.
_O_DIRECT = getattr(os, "O_DIRECT", 0)  # Linux has it.
# Linux keeps what one usual call writes in page-cache blocks as large as the call. Large ones are scarce:
# on a virtual machine 3 MB a call took five times as long as this.
_BYTES_PER_CALL = 128 << 10

_spare: list[memoryview] = []  # Used again by the next file: fresh memory can cost as much as the page cache.


@contextlib.contextmanager
def _blocks(count: int) -> Iterator[list[memoryview]]:
    """Lends blocks that begin where a page does, as direct I/O asks."""
    blocks = []
    for _ in range(count):
        try:
            blocks.append(_spare.pop())
        except IndexError:
            blocks.append(memoryview(mmap.mmap(-1, _BLOCK_BYTES)))
    try:
        yield blocks
    finally:
        _spare.extend(blocks)


class NewFile:
    """A file that was not there.

    Args:
      path: Where it goes.

    Raises:
      OSError: It cannot be made.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)

    def write(self, buffers: Iterable[bytes | bytearray]) -> int:
        """Writes the content; while a block of it is on its way to the disk the next is filled.

        Args:
          buffers: All of it, in order.

        Returns:
          Its size in bytes.

        Raises:
          OSError: The disk is full.
        """
        size = used = 0
        with _blocks(2) as blocks, ThreadPoolExecutor(1, "write") as thread:
            on_its_way: Future[None] = Future()
            on_its_way.set_result(None)
            for buffer in buffers:
                rest = memoryview(buffer)
                size += len(rest)
                while rest:
                    part = rest[: _BLOCK_BYTES - used]
                    blocks[0][used : used + len(part)] = part
                    rest, used = rest[len(part) :], used + len(part)
                    if used == _BLOCK_BYTES:
                        on_its_way.result()
                        on_its_way = thread.submit(self._write_block, blocks[0])
                        blocks.reverse()
                        used = 0
            on_its_way.result()
            self._write_usually(blocks[0][:used])
        return size

    def _write_block(self, block: memoryview) -> None:
        try:
            self._go_direct(_O_DIRECT)
            while block:
                block = block[os.write(self._descriptor, block) :]
        except OSError as refusal:
            if refusal.errno != errno.EINVAL:
                raise
            self._write_usually(block)

    def _write_usually(self, rest: memoryview) -> None:
        self._go_direct(0)
        while rest:
            rest = rest[os.write(self._descriptor, rest[:_BYTES_PER_CALL]) :]

    def _go_direct(self, flag: int) -> None:
        flags = fcntl.fcntl(self._descriptor, fcntl.F_GETFL)
        if flags & _O_DIRECT != flag:
            fcntl.fcntl(self._descriptor, fcntl.F_SETFL, flags & ~_O_DIRECT | flag)

    def sync(self) -> None:
        """Waits until the content is on disk.

        Raises:
          OSError: The disk failed.
        """
        os.fsync(self._descriptor)

    def close(self) -> None:
        """Closes the file."""
        os.close(self._descriptor)
