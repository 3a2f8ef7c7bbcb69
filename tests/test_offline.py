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

import nbformat
import pytest

from s2dm_mini.support import network

ROOT = Path(__file__).resolve().parent.parent
# A process of its own without a network, in which 127.0.0.1 answers as on every machine: kernels are reached there.
CUT = ["unshare", "--map-root-user", "--net", "--", "sh", "-c", 'ip link set lo up && exec "$@"', "sh"]
can_cut = shutil.which("unshare") and not subprocess.run([*CUT, "true"], capture_output=True).returncode
LACKS_CIFAR = "error: CIFAR-10 is not at .*batch(_1)?.bin is missing. Run `python -m s2dm_mini fetch cifar10`"


needs_cut = pytest.mark.skipif(not can_cut, reason="this system cannot cut a process off the network")


def environment(folder: Path) -> dict[str, str]:
    """Without data, a cache of the hub, or settings of Jupyter's; the user here counts as root, which JupyterLab must be told to serve."""
    (folder / "jupyter").mkdir()
    (folder / "jupyter" / "jupyter_server_config.py").write_text("c.ServerApp.allow_root, c.ServerApp.open_browser = True, False",
                                                                 encoding="utf-8")
    return os.environ | {"S2DM_DATA": str(folder / "data"), "HF_HOME": str(folder / "hf"), "PYTHONPATH": str(ROOT),
                         "JUPYTER_CONFIG_DIR": str(folder / "jupyter"), "JUPYTER_RUNTIME_DIR": str(folder / "runtime")}


@needs_cut
@pytest.mark.parametrize(("words", "said"), [
    ("fetch cifar10", r"error: CIFAR-10 could not be downloaded \(its server does not answer\). Where there is a network, download"),
    ("fetch celeba", "error: CelebA is not in"),
    ("train --preset diffusers --start google/ddpm-cifar10-32 --data shapes --steps 1",
     "error: google/ddpm-cifar10-32 is no folder here, and the Hugging Face hub cannot supply it .* Without a network, name the folder"),
    ("evaluate tiny-shapes-l0 --samples 8 --steps 1 --features inception",
     "error: Inception's (features need torch-fidelity|weights could not be downloaded)"),
    ("interpolate nano-cifar10-l0 --pairs 2 --real", LACKS_CIFAR),
    ("train --data cifar10 --steps 1", LACKS_CIFAR),
    ("train --data shapes --preset nano --steps 1 --batch 2", "^Trained 1 steps"),
    ("sample tiny-shapes-l0 --n 2 --steps 3", "^2 images, DDIM"),
    ("evaluate nano-cifar10-l0 --samples 8 --steps 3 --table t.csv", "^nano-cifar10-l0, ddim, 3 steps"),
    ("export tiny-shapes-l0 pipeline", "^A pipeline for diffusers: pipeline"),
    ("notebooks course", "^[0-9]+ files laid out in course"),
    ("evaluate-classes nano-cifar10-classes-l0 --samples 20 --steps 2 --table t.csv", LACKS_CIFAR),
    ("ledger train --size cpu --out ledger", LACKS_CIFAR),
    ("ledger train --size dry --out ledger", "^$"),
    ("predict --size quick --table t.csv", "^10 cells predicted"),
    ("verdicts --size cpu --table t.csv", "^# What data.results.t.csv comes to"),
    ("tune nano-cifar10-l0 --samples 8 --steps 2 --evaluations 6 --held-out 2 --table t.csv", "^ddim, 2 steps"),
    ("refresh tiny.ipynb", "^tiny.ipynb: "),
    ("reproduce --only 03c", r"^\[1/1\] 03c_appendix_pac_bayes: done"),
])
def test_a_command_without_a_network(words, said, tmp_path):
    if words.startswith("verdicts"):
        shutil.copy(ROOT / "data" / "results" / "ledger-cpu.csv", tmp_path / "t.csv")
    if words.startswith("refresh"):
        nbformat.write(nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("1 + 1")]), tmp_path / "tiny.ipynb")
    done = subprocess.run([*CUT, sys.executable, "-m", "s2dm_mini", *words.split()], cwd=tmp_path, env=environment(tmp_path),
                          capture_output=True, text=True, timeout=300)
    refused = "error" in said
    assert "Traceback" not in done.stderr and done.returncode == refused, done.stderr
    lines = (done.stderr if refused else done.stdout).splitlines() or [""]
    assert re.search(said, lines[-1] if refused else lines[0]), done.stderr + done.stdout


@needs_cut
@pytest.mark.parametrize(("command", "address"), [
    ("lab", r"http://127\.0\.0\.1:\d+/lab/tree/notebooks/00_start_here\.ipynb\?token=[0-9a-f]{40}"),
    ("explore", r"http://127\.0\.0\.1:\d+/\?token=[0-9a-f]{40}"),
])
def test_a_server_without_a_network(command, address, tmp_path):
    log = tmp_path / "log.txt"
    with log.open("wb") as out:
        server = subprocess.Popen([*CUT, sys.executable, "-m", "s2dm_mini", command, "course"], cwd=tmp_path, env=environment(tmp_path),
                                  stdout=out, stderr=subprocess.STDOUT)
    try:
        end = time.monotonic() + 120
        while not re.search(address, said := log.read_text(encoding="utf-8")):
            assert server.poll() is None and time.monotonic() < end, said
            time.sleep(0.2)
    finally:
        server.terminate()
        server.wait(60)
    assert "Traceback" not in said


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
