"""Work that is killed, starved of room, shut out or doubled on purpose: how much of it is survived, in one table.

    python tests/stress/crash.py               # 25 kills of each kind of work, real processes; adds a row to data/results/hardness.csv
    python tests/stress/crash.py --kills 2     # a look at it; adds none

A fault is survived if, right after it, every file that was written is whole, nothing of before is lost, and the same command then does
the rest: a training to the bit of one that nobody disturbed. No network is used; a web server of this process plays the one of CIFAR-10.
"""
import argparse
import functools
import gzip
import hashlib
import http.server
import io
import json
import multiprocessing
import os
import random
import signal
import subprocess
import sys
import tarfile
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import nbformat
import numpy as np
import torch

from s2dm_mini import checkpoints
from s2dm_mini.data.cifar10 import CIFAR10_FILES, RECORD_BYTES
from s2dm_mini.study import tables

# ------------------------------------------------------------------------------------------------------- processes

BEGIN = "import os, pathlib, sys\n{imports}\ndef begin(): pathlib.Path({marker!r}).touch()\n{code}\n"
COMMAND = """
import tyro
from s2dm_mini.__main__ import main
"""
RUN_COMMAND = """
parse = tyro.cli
tyro.cli = lambda *given, **options: (begin(), parse(*given, **options))
sys.argv = {arguments!r}
main()
"""


class Child:
    """A process that runs some code, in which begin() says that its imports are done; what it prints goes to a file.

    It is forked from one that has most imports behind it, so that nearly all of its life is work worth killing.
    """

    count = 0

    def __init__(self, folder: Path, imports: str, code: str):
        Child.count += 1
        self.marker, self.log = (folder / f"{name}.{Child.count}" for name in ("begun", "log"))
        text = BEGIN.format(imports=imports, marker=str(self.marker), code=code)
        self.process = server().Process(target=run, args=(text, str(self.log)))
        self.process.start()
        while not self.marker.exists() and self.process.is_alive():
            time.sleep(0.005)

    def kill(self, after: float, number: int = signal.SIGKILL) -> bool:
        """Send it a signal, `kill -9` by default, after so many seconds of work; whether that hit it alive."""
        time.sleep(after)
        hit = self.process.is_alive()
        if hit:
            os.kill(self.process.pid, number)
        self.process.join()
        return hit

    def end(self) -> int:
        """Wait for it; its exit status, negative where a signal ended it."""
        self.process.join()
        return self.process.exitcode

    def said(self) -> str:
        return self.log.read_text(errors="replace", encoding="utf-8")


@functools.cache
def server():
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["torch._dynamo", "s2dm_mini.__main__", "torchmetrics.image.fid", "pooch",
                                    "requests", "torchmetrics.image.kid", "papermill", "nbclient", "filelock", "tqdm", "PIL.Image", "tyro"])
    return context


def run(code: str, log: str) -> None:
    os.dup2(os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND), 1)
    os.dup2(1, 2)
    torch.set_num_threads(1)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # children of a shell's background job start with Ctrl-C ignored
    exec(code, {"__name__": "__main__"})


def command(*arguments: object) -> str:
    """Code that runs `python -m s2dm_mini` with these arguments."""
    return RUN_COMMAND.format(arguments=["s2dm_mini", *map(str, arguments)])


# ----------------------------------------------------------------------------------------------- kill -9 at any moment

# Each takes an empty folder, how many kills and a source of moments, and returns one text a kill, empty if it
# was survived and else what was wrong.
Complaints = list[str]
TRAINING = COMMAND + """
import importlib
from s2dm_mini import shapes
from s2dm_mini.unet import PRESETS, UNetConfig
PRESETS["tiny"] = UNetConfig(image_size=8, channels=(8, 16), blocks_per_level=1, attention_levels=(1,), norm_groups=4, dropout=0.1)
images = shapes(40, size=8)
importlib.import_module("s2dm_mini.training.setup").load_data = lambda *_: images
"""
SMALL = ("--data", "shapes", "--preset", "tiny", "--batch", 4, "--warmup", 2, "--device", "cpu", "--log-every", 1, "--save-minutes", 0)


def training(folder: Path, out: Path, steps: int) -> Child:
    """A training that saves after each step, begun or gone on with."""
    resume = ["--resume"] if (out / "state.safetensors").exists() else []
    return Child(folder, TRAINING, command("train", *SMALL, "--steps", steps, "--out", out, *resume))


def unreadable(out: Path) -> str:
    for path in out.glob("*.safetensors"):
        try:
            tensors, header = checkpoints.read_tensors(path)
        except checkpoints.CheckpointError as error:
            return str(error)
        if not all(value.isfinite().all() for value in tensors.values()):
            return f"{path} after step {header['record']['steps']} is not finite"
    return ""


def differs(out: Path, reference: Path) -> str:
    """From the undisturbed training, in any bit of the state or of the network; or by something left behind."""
    for name in ("state.safetensors", "model.safetensors"):
        (ours, our_header), (theirs, their_header) = (checkpoints.read_tensors(place / name) for place in (out, reference))
        if set(ours) != set(theirs) or not all(ours[name].equal(theirs[name]) for name in ours):
            return f"{out / name} holds other numbers than that of the undisturbed training"
        if our_header["record"]["steps"] != their_header["record"]["steps"]:
            return f"{out / name} is that of step {our_header['record']['steps']}"
    return next((f"{part} was left behind" for part in out.glob("*.part")), "")


def killed_training(folder: Path, kills: int, moments: random.Random, steps: int = 25) -> Complaints:
    """Every step is saved; after each kill both files are whole, and in the end every number is that of the undisturbed training."""
    reference, complaints = folder / "reference", []
    child, begin = training(folder, reference, steps), time.monotonic()
    assert child.end() == 0, child.said()
    duration, chain = time.monotonic() - begin, 0
    while len(complaints) < kills:  # a training is killed, resumed and killed again until it is through; then comes the next
        out, of_this = folder / f"run{chain}", []
        while len(complaints) + len(of_this) < kills and training(folder, out, steps).kill(moments.uniform(0, 0.5 * duration)):
            of_this.append(unreadable(out))
        child = training(folder, out, steps)
        wrong = child.said() if child.end() else differs(out, reference)
        complaints, chain = complaints + [wrong or complaint for complaint in of_this], chain + 1
    return complaints


FETCH = """
os.environ["NO_PROXY"] = "127.0.0.1"
cifar10.CIFAR10_URL, cifar10.CIFAR10_MD5, cifar10.RECORDS_PER_FILE = {url!r}, {md5!r}, {records}
begin()
cifar10.fetch_cifar10({folder!r})
"""
RECORDS = 200


def killed_fetch(folder: Path, kills: int, moments: random.Random) -> Complaints:
    """After each kill the loader finds a file whole or says that it is missing; then the command fetches the rest, and leaves nothing."""
    files = write_cifar10(folder / "whole")
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(f"cifar-10-batches-bin/{name}")
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    archive = gzip.compress(packed.getvalue(), 1)

    def fetching(place: Path) -> Child:
        md5 = hashlib.md5(archive).hexdigest()
        return Child(folder, "from s2dm_mini.data import cifar10\nimport pooch, requests",
                     FETCH.format(url=url, md5=md5, records=RECORDS, folder=str(place)))

    def half(place: Path) -> str:
        for name, content in files.items():
            path = place / "cifar-10-batches-bin" / name
            if path.exists() and path.read_bytes() != content:
                return f"{path} is not whole"
        return ""

    def rest(place: Path) -> str:
        child = fetching(place)
        if child.end() != 0:
            return child.said()
        left = {str(p.relative_to(place)) for p in place.rglob("*") if p.is_file() and p.suffix != ".lock"}
        left -= {f"cifar-10-batches-bin/{name}" for name in files} | {"cifar-10-archive/cifar-10-binary.tar.gz"}
        return half(place) or (f"left behind: {', '.join(left)}" if left else "")

    with served(archive, seconds=0.4) as url:
        return killed_at_random(folder, kills, moments, fetching, lambda place: half(place) or rest(place))


def killed_at_random(folder: Path, kills: int, moments: random.Random, begin: Callable[[Path], Child],
                     complaint: Callable[[Path], str]) -> Complaints:
    """Begin in one new folder after the other, kill at any moment of the time an undisturbed run takes, and ask for the complaint."""
    child, start = begin(folder / "reference"), time.monotonic()
    assert child.end() == 0, child.said()
    duration, complaints, tries = time.monotonic() - start, [], 0
    while len(complaints) < kills:
        place, tries = folder / f"run{tries}", tries + 1
        if begin(place).kill(moments.uniform(0, duration)):
            complaints.append(complaint(place))
    return complaints


@contextmanager
def served(content: bytes, seconds: float) -> Iterator[str]:
    """The address of a web server that takes about so long to send the content."""
    class Slow(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            for i in range(0, len(content), max(len(content) // 20, 1)):
                try:
                    self.wfile.write(content[i:i + max(len(content) // 20, 1)])
                except OSError:  # whoever asked is dead
                    return
                time.sleep(seconds / 20)

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Slow) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}/cifar-10-binary.tar.gz"
        server.shutdown()


REPRODUCE = "begin()\nreproduce(pathlib.Path({out!r}), (), [], pathlib.Path({notebooks!r}))"


def killed_reproduction(folder: Path, kills: int, moments: random.Random, notebooks: int = 2) -> Complaints:
    """After each kill notebooks and page are whole; then the command goes on, does no finished notebook again, and no kernel lives on."""
    series, ran = folder / "notebooks", folder / "ran"
    series.mkdir()
    for i in range(notebooks):
        write_notebook(series / f"0{i}_story.ipynb", f"import os\nwith open({str(ran)!r}, 'a') as f: print({i}, os.getpid(), file=f)",
                       *[f"print('check: {i}.{j}', 'x' * 10_000)" for j in range(4)])

    def reproducing(out: Path) -> Child:
        return Child(folder, "from s2dm_mini.series.reproduce import reproduce\nimport papermill",
                     REPRODUCE.format(out=str(out), notebooks=str(series)))

    def half(out: Path) -> str:
        for path in out.glob("0?_story.ipynb"):
            try:
                cells = nbformat.read(path, as_version=4).cells
            except ValueError as error:
                return f"{path} cannot be read: {error}"
            if f"check: {path.name[1]}.3" not in str(cells[-1].outputs):
                return f"{path} was not executed to its end"
        if (out / "index.html").exists() and not (out / "index.html").read_text(encoding="utf-8").endswith("</html>\n"):
            return f"{out / 'index.html'} is not whole"
        return ""

    def rest(out: Path) -> str:
        done = json.loads((out / "unfinished.json").read_text(encoding="utf-8"))["seconds"] if (out / "unfinished.json").exists() else {}
        before = len(ran.read_text(encoding="utf-8").splitlines()) if ran.exists() else 0
        child = reproducing(out)
        if child.end() != 0:
            return child.said()
        again = {line.split()[0] for line in ran.read_text(encoding="utf-8").splitlines()[before:]} & {name[1] for name in done}
        page = (out / "index.html").read_text(encoding="utf-8")
        missing = [f"{i}.{j}" for i in range(notebooks) for j in range(4) if f"<li>{i}.{j} x" not in page]
        left = [p.name for p in out.iterdir() if p.suffix not in (".lock", ".html") and not p.name.endswith("_story.ipynb")]
        return half(out) or (f"done twice: {again}" if again else "") or (f"the page lacks {missing}" if missing else "") or (
            f"left behind: {left}" if left else "")

    complaints = killed_at_random(folder, kills, moments, reproducing, lambda out: half(out) or rest(out))
    deadline = time.monotonic() + 20
    kernels = {int(line.split()[1]) for line in ran.read_text(encoding="utf-8").splitlines()}
    while (alive := [pid for pid in kernels if Path(f"/proc/{pid}").exists()]) and time.monotonic() < deadline:
        time.sleep(0.2)
    return [complaint or (f"kernels live on: {alive}" if alive else "") for complaint in complaints]


def write_notebook(path: Path, *cells: str) -> None:
    notebook = nbformat.v4.new_notebook()
    notebook.cells = [nbformat.v4.new_markdown_cell("# A story\n\nA promise."), *map(nbformat.v4.new_code_cell, cells)]
    nbformat.write(notebook, path)


APPEND = """
begin()
acknowledged = os.open({acknowledged!r}, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
for i in range({first}, {last}):
    append_row({table!r}, {{"i": i, "text": "x" * 2_000}}, ("i",))
    os.write(acknowledged, f"{{i}}\\n".encode())
"""


def killed_result(folder: Path, kills: int, moments: random.Random) -> Complaints:
    """After each kill the table holds every row that was acknowledged, at most the one that was being written besides, and none twice."""
    table, acknowledged, complaints, last = folder / "table.csv", folder / "acknowledged", [], 0
    while len(complaints) < kills:
        child = Child(folder, "from s2dm_mini.study.tables import append_row\nimport filelock",
                      APPEND.format(acknowledged=str(acknowledged), table=str(table), first=last, last=last + 100_000))
        child.kill(moments.uniform(0, 0.3))
        told = [int(line) for line in acknowledged.read_text(encoding="utf-8").split()] if acknowledged.exists() else []
        try:
            found = [int(row["i"]) for row in tables.read_rows(table)] if table.exists() else []
            right = found == list(range(len(found))) and told == list(range(len(told))) and 0 <= len(found) - len(told) <= 1
            complaints.append("" if right else f"rows {found}, acknowledged {told}")
        except tables.ResultsError as error:
            complaints.append(str(error))
        last = len(told)  # a row that was written and not acknowledged is tried again, and not doubled
    tables.append_row(table, {"i": last, "text": "the last"}, ("i",))
    left = list(folder.glob("*.part"))
    return [complaint or (f"left behind: {left}" if left else "") for complaint in complaints]


# ------------------------------------------------------------------------------------------------- no room, no permission

@contextmanager
def mounted(folder: Path, size: str) -> Iterator[Path]:
    """A disk of that size at `folder`, which is made. Raises PermissionError where one may not mount."""
    folder.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)], capture_output=True).returncode:
        raise PermissionError("mounting needs root")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def remount(folder: Path, options: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{options}", str(folder)], check=True)


def refused(child: Child, sentence: str) -> str:
    """What is wrong, if a child did not end with status 1 and this in one line."""
    status, said = child.end(), child.said().strip()
    good = status == 1 and sentence in said and said.startswith("error: ") and "\n" not in said
    return "" if good else f"status {status}, said: {said[-600:]}"


def full_disk(folder: Path, faults: int, moments: random.Random) -> Complaints:
    """A training meets a full disk, each time at another place: one sentence, what was saved is whole, and with room it goes on."""
    reference, complaints = folder / "reference", []
    assert training(folder, reference, 4).end() == 0
    whole = sum((reference / name).stat().st_size for name in ("model.safetensors", "state.safetensors")) / 1024
    for fault in range(faults):
        with mounted(folder / f"disk{fault}", f"{whole * moments.uniform(0.1, 1.7):.0f}k") as disk:
            out = disk / "run"
            wrong = refused(training(folder, out, 4), "cannot be written (No space left on device)") or unreadable(out)
            remount(disk, "size=100m")
            child = training(folder, out, 4)
            complaints.append(wrong or (child.said() if child.end() else differs(out, reference)))
    return complaints


def read_only(folder: Path, faults: int, moments: random.Random) -> Complaints:
    """Whoever wants to write on a disk that may only be read says so in one sentence."""
    with mounted(folder / "disk", "10m") as disk:
        write_notebook(disk / "00_story.ipynb", "1")
        tables.append_row(disk / "table.csv", {"a": 1})
        remount(disk, "ro")
        drawing = ("tiny-shapes-l0", "--steps", 3, "--device", "cpu")
        asked = [("train", *SMALL, "--steps", 1, "--out", disk / "run"), ("sample", *drawing, "--n", 2, "--out", disk / "a.png"),
                 ("evaluate", *drawing, "--samples", 8, "--table", disk / "new.csv"),
                 ("ledger", "train", "--size", "dry", "--out", disk / "ledger"), ("predict", "--size", "dry", "--table", disk / "p.csv"),
                 ("reproduce", "--only", "00", "--out", disk / "reproduction"), ("refresh", disk / "00_story.ipynb"),
                 ("fetch", "--folder", disk / "data")][:faults]
        return [refused(Child(folder, TRAINING, command(*arguments)), "Read-only file system") for arguments in asked]


# ------------------------------------------------------------------------------------------------------ two at once

def doubled(folder: Path, faults: int, moments: random.Random) -> Complaints:
    """A second training in a folder is refused while the first one runs; once that is killed, the next one goes on."""
    complaints, out = [], folder / "run"
    for fault in range(faults):
        first = training(folder, out, 100_000)
        while not (out / "state.safetensors").exists() and first.process.is_alive():
            time.sleep(0.01)
        wrong = refused(training(folder, out, 100_000), "another process is writing")
        first.kill(0)
        child = training(folder, out, 1 + fault)  # whatever the first has done, there is nothing left to do
        complaints.append(wrong or (child.said() if child.end() else unreadable(out)))
    return complaints


# --------------------------------------------------------------------------------------------------- asked to stop

def stopped(folder: Path, faults: int, moments: random.Random) -> Complaints:
    """Ctrl-C, and SIGTERM as Slurm and `docker stop` send it, end each command that takes long with a sentence and status 130."""
    write_notebook(folder / "00_story.ipynb", "import time\ntime.sleep(600)")
    write_cifar10(folder / "data")
    device, net, complaints = ("--device", "cpu"), "tiny-shapes-l0", []
    asked = [("train", *SMALL, "--steps", 10**6, "--out", folder / "run"),
             ("sample", net, "--n", 10**4, *device, "--out", folder / "a.png"),
             ("evaluate", net, "--samples", 10**5, *device, "--table", folder / "t.csv"),
             ("interpolate", net, "--against", net, "--pairs", 10**4, *device, "--table", folder / "t.csv"),
             ("reproduce", "--only", "01", "--out", folder / "reproduction"), ("refresh", folder / "00_story.ipynb"),
             ("ledger", "train", "--size", "quick", "--out", folder / "ledger", *device),
             ("predict", "--size", "full", "--table", folder / "p.csv")]
    for number, arguments in [(number, a) for number in (signal.SIGINT, signal.SIGTERM) for a in asked][:faults]:
        again = ["--resume"] if arguments[0] == "train" and (folder / "run" / "state.safetensors").exists() else []
        imports = TRAINING if arguments[0] == "train" else COMMAND + SHORT_FILES.format(records=RECORDS, folder=str(folder / "data"))
        child = Child(folder, imports, command(*arguments, *again))
        hit = child.kill(moments.uniform(0.3, 1.5), number)  # the shortest of them takes two seconds
        status, said = child.end(), child.said()
        good = hit and status == 130 and "stopped" in said.splitlines()[-1] and "Traceback" not in said and not list(folder.rglob("*.part"))
        complaints.append("" if good else f"{arguments[0]}: status {status}, said: {said[-800:]}")
    return complaints


SHORT_FILES = """
from s2dm_mini.data import cifar10
os.environ["S2DM_DATA"], cifar10.RECORDS_PER_FILE = {folder!r}, {records}
"""


def write_cifar10(folder: Path) -> dict[str, bytes]:
    """CIFAR-10's files with a few random pictures each; their contents by name."""
    numbers, files = np.random.default_rng(0), {}
    (folder / "cifar-10-batches-bin").mkdir(parents=True)
    for name in [name for split in CIFAR10_FILES.values() for name in split]:
        records = numbers.integers(0, 256, (RECORDS, RECORD_BYTES), dtype=np.uint8)
        records[:, 0] %= 10
        files[name] = records.tobytes()
        (folder / "cifar-10-batches-bin" / name).write_bytes(files[name])
    return files


# ---------------------------------------------------------------------------------------------------------- the table

KILLED = {"kill -9, a training": killed_training, "kill -9, fetch": killed_fetch, "kill -9, reproduce": killed_reproduction,
          "kill -9, writing a result": killed_result}
OTHERS = {"disk full, a training": (full_disk, 10), "disk read-only, nine commands": (read_only, 9),
          "two trainings in one folder": (doubled, 3), "Ctrl-C and SIGTERM, ten commands": (stopped, 20)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--kills", type=int, default=25, help="of each kind of work")
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    options = parser.parse_args()
    begin, faults, survived = time.monotonic(), 0, 0
    print("| fault | injected | survived |\n| --- | ---: | ---: |")
    for title, (scenario, count) in {**{title: (scenario, options.kills) for title, scenario in KILLED.items()}, **OTHERS}.items():
        with tempfile.TemporaryDirectory() as folder:
            complaints = scenario(Path(folder), count, random.Random(options.seed))
        faults, survived = faults + len(complaints), survived + complaints.count("")
        print(f"| {title} | {len(complaints)} | {complaints.count('')} |", *filter(None, complaints), sep="\n  ", flush=True)
    print(f"faults injected {faults}, survived {survived}")
    if options.kills >= 25:
        from table import record

        record("faults survived", faults, survived, time.monotonic() - begin, "python tests/stress/crash.py")
    sys.exit(survived < faults)


if __name__ == "__main__":
    main()
