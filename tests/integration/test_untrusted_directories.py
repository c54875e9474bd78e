"""Run directories of other users, and processes that other machines cannot reach."""

import os

import pytest
from support.paths import ROOT

from lookupvivit.training import distributed, ownership


def test_checkpoints_of_another_user_are_unpickled_only_if_trusted(tmp_path, command, shell):
    run = tmp_path / "run"
    short = ("log.attention_every_epochs=0", "log.validate_every_epochs=0")
    shell(command("train_net.py", run, *short, "optim.max_steps=1"))
    python, tool, *words = command("train_net.py", run, *short, "optim.max_steps=2")
    resume = [python, str(ROOT / "tests" / "support" / "faults.py"), "other_owner", tool, *words]
    output = shell(resume, expect=2)
    assert f"error: output_dir: {run} belongs to user " in output and "--trust-other-owner" in output
    assert "UNPICKLED" not in output and "Traceback" not in output
    output = shell([*resume, "--trust-other-owner"])
    assert "resuming from step 1 of 2" in output and "UNPICKLED" in output


def test_each_file_of_a_checkpoint_must_be_the_users(tmp_path, monkeypatch):
    checkpoint = tmp_path / "run" / "checkpoints" / "step_00000001"
    checkpoint.mkdir(parents=True)
    (checkpoint / "shard.pt").write_bytes(b"")
    assert ownership.find_foreign(checkpoint) == ""
    if os.geteuid() != 0:
        pytest.skip("only root can give files away")
    os.chown(checkpoint / "shard.pt", 12345, -1)
    assert ownership.find_foreign(checkpoint).startswith(f"{checkpoint / 'shard.pt'} belongs to user 12345, not to ")


@pytest.mark.skipif(not os.path.exists("/proc/self/net/tcp"), reason="needs /proc")
@pytest.mark.parametrize("launcher", [None, "with rendezvous variables"])
def test_a_single_process_listens_on_loopback_only(monkeypatch, launcher):
    for name in distributed.RENDEZVOUS:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "eth0")
    if launcher:
        for name, value in zip(distributed.RENDEZVOUS, ("0", "1", "0", "127.0.0.1", "0"), strict=True):
            monkeypatch.setenv(name, value)
    before = listening_addresses()
    world = distributed.start()
    try:
        world.barrier()
        opened = listening_addresses() - before
        assert all(address.startswith("0100007F:") for address in opened), opened
    finally:
        distributed.stop()


def listening_addresses() -> set[str]:
    """Addresses (hexadecimal, as in /proc) on which this process accepts connections."""
    sockets = set()
    for descriptor in os.listdir("/proc/self/fd"):
        try:
            sockets.add(os.readlink(f"/proc/self/fd/{descriptor}"))
        except OSError:
            continue
    found = set()
    for protocol in ("tcp", "tcp6"):
        with open(f"/proc/self/net/{protocol}") as lines:
            rows = [line.split() for line in lines.readlines()[1:]]
        found |= {row[1] for row in rows if row[3] == "0A" and f"socket:[{row[9]}]" in sockets}
    return found
