"""Read several files at a time, ahead of their use and in order."""

from __future__ import annotations

import queue
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import Generic, TypeVar

Item = TypeVar("Item")
Part = TypeVar("Part")
POLL_SECONDS = 0.1  # after which a thread notices that nobody takes its parts any more
END_SECONDS = 2.0  # in which threads end that nothing holds up


def read_ahead(
    items: Iterable[Item], read: Callable[[Item], Iterator[Part]], threads: int, parts: int
) -> Iterator[tuple[Item, Iterator[Part]]]:
    """Yield each item, in order, with an iterator over what ``read`` yields for it.

    Each thread that decodes has a decoding process of its own (`data_pipelines.video.decoding_process`), so that
    several cores decode while the caller computes.

    Args:
        items: at most twice as many as there are threads are read before their turn.
        read: yields the parts of an item. Its exceptions are raised by the item's iterator.
        threads: the number of items that are read at a time; 0 reads in the calling thread, without reading ahead.
        parts: the number of parts of one item that wait to be taken.
    """
    if not threads:
        yield from ((item, read(item)) for item in items)
        return
    remaining = iter(items)
    channels: deque[_Channel[Item, Part]] = deque()
    waiting: queue.SimpleQueue[_Channel[Item, Part] | None] = queue.SimpleQueue()
    # Daemons: a caller that does not take everything can still end the process.
    readers = [threading.Thread(target=_fill_all, args=(waiting, read), daemon=True) for _ in range(threads)]
    for reader in readers:
        reader.start()
    try:
        while True:
            for item in islice(remaining, 2 * threads - len(channels)):
                channels.append(_Channel(item, parts))
                waiting.put(channels[-1])
            if not channels:
                return
            yield channels[0].item, channels[0].take()
            channels.popleft().abandoned.set()
    finally:
        for channel in channels:
            channel.abandoned.set()
        for _ in readers:
            waiting.put(None)
        _wait_for(readers)


def _wait_for(threads: list[threading.Thread]) -> None:
    """Give threads time to end: one that releases tensors while the interpreter shuts down aborts the process."""
    deadline = time.monotonic() + END_SECONDS
    for thread in threads:
        if not sys.is_finalizing():  # then they cannot run
            thread.join(max(0.0, deadline - time.monotonic()))


def _fill_all(waiting: queue.SimpleQueue[_Channel[Item, Part] | None], read: Callable[[Item], Iterator[Part]]) -> None:
    """Read items in a thread, until there is None."""
    while (channel := waiting.get()) is not None:
        if not channel.abandoned.is_set():
            channel.fill(read)


class _End:
    """Follows the last part of an item, with the exception that ended it."""

    def __init__(self, error: BaseException | None) -> None:
        self.error = error


class _Channel(Generic[Item, Part]):
    """The parts of one item between the thread that reads them and the one that takes them."""

    def __init__(self, item: Item, parts: int) -> None:
        self.item, self.abandoned = item, threading.Event()
        self._waiting: queue.Queue[Part | _End] = queue.Queue(parts)

    def fill(self, read: Callable[[Item], Iterator[Part]]) -> None:
        """Read all parts; in a thread of its own."""
        end = _End(None)
        try:
            for part in read(self.item):
                if not self._put(part):
                    return
        except BaseException as error:
            end = _End(error)
        self._put(end)

    def take(self) -> Iterator[Part]:
        """Yield the parts."""
        while True:
            part = self._waiting.get()
            if not isinstance(part, _End):
                yield part
            elif part.error is None:
                return
            else:
                raise part.error

    def _put(self, part: Part | _End) -> bool:
        """Whether there was a place for the part before the item was abandoned."""
        while not self.abandoned.is_set():
            try:
                self._waiting.put(part, timeout=POLL_SECONDS)
            except queue.Full:
                continue
            return True
        return False
