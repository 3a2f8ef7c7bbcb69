"""Without a network every command works, or says in one sentence what it lacks; and none waits long for a host that does not answer."""
import os
import re
import shutil
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from s2dm_mini.support import network

ROOT = Path(__file__).resolve().parent.parent
CUT = ["unshare", "--map-root-user", "--net", "--"]
can_cut = shutil.which("unshare") and not subprocess.run([*CUT, "true"], capture_output=True).returncode
LACKS_CIFAR = "error: CIFAR-10 is not at .*batch(_1)?.bin is missing. Run `python -m s2dm_mini fetch cifar10`"


@pytest.mark.skipif(not can_cut, reason="this system cannot cut a process off the network")
@pytest.mark.parametrize(("words", "said"), [
    ("fetch cifar10", r"error: CIFAR-10 could not be downloaded \(its server does not answer\). Where there is a network, download"),
    ("fetch celeba", "error: CelebA is not in"),
    ("train --preset diffusers --start google/ddpm-cifar10-32 --data shapes --steps 1",
     "error: google/ddpm-cifar10-32 is no folder here, and the Hugging Face hub cannot supply it .* Without a network, name the folder"),
    ("evaluate tiny-shapes-l0 --samples 8 --steps 1 --features inception",
     "error: Inception's (features need torch-fidelity|weights could not be downloaded)"),
    ("interpolate nano-cifar10-l0 --pairs 2 --real", LACKS_CIFAR),
    ("train --data cifar10 --steps 1", LACKS_CIFAR),
    ("eigenvalues", LACKS_CIFAR),
    ("train-classifier", LACKS_CIFAR),
    ("train --data shapes --preset nano --steps 1 --batch 2", "^Trained 1 steps"),
    ("sample tiny-shapes-l0 --n 2 --steps 3", "^2 images, DDIM"),
    ("evaluate nano-cifar10-l0 --samples 8 --steps 3 --table t.csv", "^nano-cifar10-l0, ddim, 3 steps"),
    ("export tiny-shapes-l0 pipeline", "^A pipeline for diffusers: pipeline"),
    ("notebooks course", "^[23]. files laid out in course"),
])
def test_a_command_without_a_network(words, said, tmp_path):
    environment = {**os.environ, "S2DM_DATA": str(tmp_path / "data"), "HF_HOME": str(tmp_path / "hf"), "PYTHONPATH": str(ROOT)}
    done = subprocess.run([*CUT, sys.executable, "-m", "s2dm_mini", *words.split()], cwd=tmp_path, env=environment, capture_output=True,
                          text=True, timeout=300)
    refused = "error" in said
    assert "Traceback" not in done.stderr and done.returncode == refused, done.stderr
    lines = (done.stderr if refused else done.stdout).splitlines()
    assert re.search(said, lines[-1] if refused else lines[0]), done.stderr + done.stdout


def test_a_host_is_not_waited_for(monkeypatch):
    """A look-up that never ends, a port that nobody listens at, one that answers, and a proxy in between."""
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        assert network.answers(f"http://127.0.0.1:{port}/x.tar.gz")
        monkeypatch.setenv("https_proxy", f"http://127.0.0.1:{port}")
        assert network.answers("https://no-such-host.invalid/x.tar.gz")
    assert not network.answers("https://no-such-host.invalid/x.tar.gz"), "the proxy is gone"
    monkeypatch.delenv("https_proxy")
    ended = threading.Event()
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_: ended.wait(60) and [])
    start = time.monotonic()
    assert not network.answers("https://no-such-host.invalid", seconds=0.5) and time.monotonic() - start < 5
    ended.set()
    assert network.answers.__defaults__[0] < 10
