"""Reading several items ahead, in threads."""

import subprocess
import sys
import threading
import time
from itertools import islice

import pytest

from data_pipelines.read_ahead import read_ahead


def parts_of(item):
    for number in range(item):
        if number == 3:
            raise ValueError(f"part 3 of {item}")
        yield item, number


@pytest.mark.parametrize("threads", [0, 1, 3])
def test_items_and_parts_come_in_order_with_their_errors(threads):
    found = []
    for item, parts in read_ahead([2, 0, 5, 1, 3], parts_of, threads, parts=2):
        try:
            found += parts
        except ValueError as error:
            found.append(str(error))
        assert all(item == part[0] for part in found[-1:] if isinstance(part, tuple)) or item == 0
    assert found == [(2, 0), (2, 1), (5, 0), (5, 1), (5, 2), "part 3 of 5", (1, 0), (3, 0), (3, 1), (3, 2)]


def test_the_numbers_of_items_and_parts_ahead_are_limited():
    """While the first part of the first item is used, each of two threads reads one item as far as it may."""
    read, full = [], threading.Event()

    def read_parts(item):
        for number in range(9):
            read.append((item, number))
            if {(0, 3), (1, 2)} <= set(read):
                full.set()
            yield number

    items = iter(range(100))
    stream = read_ahead(items, read_parts, threads=2, parts=2)
    _, parts = next(stream)
    assert next(parts) == 0 and full.wait(60)
    stream.close()
    # Two parts wait, and a thread holds the next one.
    assert max(number for item, number in read if item == 0) == 3 and max(item for item, _ in read) == 1
    assert list(islice(items, 1)) == [4]


def test_closing_ends_the_threads_and_closes_what_they_read():
    started, closed = threading.Semaphore(0), threading.Semaphore(0)

    def endless(item):
        started.release()
        try:
            while True:
                yield item
        finally:
            closed.release()

    stream = read_ahead("abc", endless, threads=2, parts=1)
    item, parts = next(stream)
    assert (item, next(parts)) == ("a", "a")
    assert started.acquire(timeout=60) and started.acquire(timeout=60)  # both threads read
    stream.close()
    assert closed.acquire(timeout=60) and closed.acquire(timeout=60)


def test_threads_have_ended_when_all_is_taken(monkeypatch):
    """Else they could release tensors while the interpreter shuts down, which aborts the process."""
    monkeypatch.setattr("data_pipelines.read_ahead.END_SECONDS", 60)
    of_thread, released = threading.local(), []

    class SlowToRelease:
        def __del__(self):
            time.sleep(0.3)
            released.append(self)

    def read(item):
        of_thread.value = SlowToRelease()
        yield item

    assert [list(parts) for _, parts in read_ahead(range(5), read, threads=2, parts=1)] == [[k] for k in range(5)]
    assert len(released) == 5


def test_a_program_that_does_not_take_everything_ends():
    program = "from data_pipelines.read_ahead import read_ahead; from itertools import repeat\n"
    program += "stream = read_ahead('abc', repeat, threads=2, parts=1); next(stream)"
    subprocess.run([sys.executable, "-c", program], check=True, timeout=120)
