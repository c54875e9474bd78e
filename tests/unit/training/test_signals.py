"""Ctrl-C and the signals of schedulers."""

import signal
import subprocess
import sys

import pytest
from support.paths import ROOT

PROGRAM = """
import signal, time
from lookupvivit.training.signals import StopRequest
signal.signal(signal.SIGINT, signal.default_int_handler)  # a suite in the background inherits that it is ignored
request = StopRequest(reports=True)
with request, request.on_interrupt():
    request.saved = "step 5 of 9 is saved in run"
    print("ready", flush=True)
    deadline = time.monotonic() + 100
    while not request.name and time.monotonic() < deadline:
        time.sleep(0.01)
    print(f"stopping for {request.name}", flush=True)
    while WAITING and time.monotonic() < deadline:
        time.sleep(0.01)
try:
    print("saved", flush=True)
    while time.monotonic() < deadline:
        time.sleep(0.01)
except KeyboardInterrupt:
    print("interrupted as usual")
"""


@pytest.fixture
def program():
    started = []

    def start(waiting):
        code = PROGRAM.replace("WAITING", str(waiting))
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
        process = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, **pipes)
        started.append(process)
        assert process.stdout.readline() == "ready\n"
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def read_until(process, text):
    lines = []
    while not lines or text not in lines[-1]:
        lines.append(process.stdout.readline())
        assert lines[-1], lines
    return "".join(lines)


def test_the_first_interrupt_asks_to_stop_and_the_second_ends_the_process(program):
    process = program(waiting=True)
    process.send_signal(signal.SIGINT)
    output = read_until(process, "stopping for SIGINT")
    assert "interrupted: saving after this step" in output and "step 5 of 9 is saved in run" in output
    process.send_signal(signal.SIGTERM)  # of a launcher: it ends nothing
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "interrupted again: step 5 of 9 is saved in run" in output and "saved\n" not in output


def test_an_interrupt_outside_of_training_raises(program):
    process = program(waiting=False)
    process.send_signal(signal.SIGINT)
    read_until(process, "saved\n")
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 0 and "interrupted as usual" in output


def test_sigterm_ends_the_process_after_training(program):
    process = program(waiting=False)
    process.send_signal(signal.SIGTERM)
    read_until(process, "saved\n")
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == -signal.SIGTERM
