"""What a file, a name or a neighbour on the network could do: run code, write elsewhere, fill the memory, see the pages of a server."""
import ast
import http.client
import os
import re
import shlex
import socket
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import nbformat
import pytest
import torch

from s2dm_mini import data
from s2dm_mini.checkpoints import CheckpointError, load_model, write_tensors
from s2dm_mini.data.cifar10 import fetch_cifar10
from s2dm_mini.study.ledger import missing
from s2dm_mini.study.plan import SETTINGS, Group
from s2dm_mini.support.files import MAX_HEADER
from s2dm_mini.unet import UNetConfig

ROOT = Path(__file__).resolve().parent.parent
BIN = Path(sys.executable).parent
EVIL = ("a b", "a;touch owned", "a'b\"c", "$(touch owned)", "`touch owned`", "a&&touch owned", "a\ntouch owned", "--out=x", "a|b>c", "*")
not_windows = pytest.mark.skipif(os.name == "nt", reason="Windows has no make, and quotes otherwise")


# ------------------------------------------------------------------------------------------- nothing read runs as code

def sources() -> dict[str, ast.Module]:
    """Everything that users run: the package, the notebooks' code cells, the scripts beside them."""
    found = {str(path.relative_to(ROOT)): path.read_text(encoding="utf-8")
             for folder in ("s2dm_mini", "notebooks", "tests/benchmarks", "tests/stress") for path in (ROOT / folder).rglob("*.py")}
    for path in (ROOT / "notebooks").rglob("*.ipynb"):
        if ".ipynb_checkpoints" not in path.parts:
            cells = [cell.source for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]
            found[str(path.relative_to(ROOT))] = "\n".join(re.sub(r"(?m)^\s*[%!?].*$", "pass", cell) for cell in cells)
    return {name: ast.parse(text) for name, text in found.items()}


UNPICKLING = {"pickle", "cPickle", "dill", "shelve", "marshal", "joblib", "cloudpickle"}
CALLS = {"torch.load", "eval", "exec", "os.system", "os.popen", "yaml.load", "yaml.unsafe_load", "yaml.full_load", "pd.read_pickle",
         "np.fromregex", "tempfile.mktemp"}


def complaints(name: str, tree: ast.Module) -> list[str]:
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            modules = [alias.name for alias in node.names] if isinstance(node, ast.Import) else [node.module or ""]
            found += [f"imports {module}" for module in modules if module.partition(".")[0] in UNPICKLING]
        if not isinstance(node, ast.Call):
            continue
        called, keywords = ast.unparse(node.func), {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
        weights_only = called == "torch.load" and keywords.get("weights_only") == "True"  # tensors alone, no code
        found += [f"calls {called}"] if (called in CALLS and not weights_only) or called.endswith((".extractall", ".extract")) else []
        found += [f"{called} with {keyword}" for keyword in ("shell", "allow_pickle") if keywords.get(keyword, "False") != "False"]
        if called.endswith(("pooch.retrieve", "pooch.create")):
            known_hash = keywords.get("known_hash", ast.unparse(node.args[1]) if len(node.args) > 1 else "None")
            found += ["downloads without a hash"] if known_hash in ("None", "") else []
        if called.endswith("from_pretrained") and keywords.get("use_safetensors") != "True":
            found.append(f"{called} may unpickle")
    return [f"{name}: {complaint}" for complaint in found]


OWN_CODE = ("mutants.py", "crash.py")  # they execute code, which they have written themselves


def test_nothing_is_unpickled_evaluated_or_given_to_a_shell():
    found = sources()
    assert len(found) > 40, "the search must see the package and the notebooks"
    assert [line for name, tree in found.items() if not name.endswith(OWN_CODE) for line in complaints(name, tree)] == []


@pytest.mark.parametrize("code", [
    "import pickle", "from dill import loads", "torch.load(path)", "eval(text)", "exec('1')", "os.system(x)", "np.load(f, allow_pickle=1)",
    "subprocess.run(x, shell=True)", "yaml.load(x)", "tar.extractall(there)", "pooch.retrieve(url, None)", "pooch.retrieve(url=a)",
    "DDPMPipeline.from_pretrained(folder)"])
def test_the_search_finds_what_it_is_for(code):
    assert complaints("x", ast.parse(code))


@pytest.mark.parametrize("code", ["model.eval()", "np.load(f, allow_pickle=False)", "subprocess.run(x)", "ast.literal_eval(x)",
                                  "pooch.retrieve(url, 'md5:1')", "yaml.safe_load(x)"])
def test_the_search_leaves_the_rest_alone(code):
    assert not complaints("x", ast.parse(code))


# ----------------------------------------------------------------------------------------------------- files and archives

def test_a_header_is_bounded_and_asks_for_no_more_memory_than_its_file_holds(tmp_path):
    path = tmp_path / "m.safetensors"
    path.write_bytes((MAX_HEADER + 1).to_bytes(8, "little") + b"{" + b" " * 100)
    with pytest.raises(CheckpointError, match=r"header claims 16,777,217 bytes, at most 16,777,216"):
        load_model(path)
    # 16 levels' worth of blocks would take minutes to lay out; 4096 channels, terabytes to hold.
    small = UNetConfig(image_size=8, channels=(4, 4), norm_groups=1).to_dict()
    for change in ({"channels": [4096] * 4}, {"blocks_per_level": 10**9}, {"channels": [4] * 2**20}, {"image_size": 2**40}):
        write_tensors(path, {"conv_in.weight": torch.zeros(4, 3, 3, 3)}, {"unet": small | change, "record": {}})
        start = time.process_time()
        with pytest.raises(CheckpointError, match="does not hold a network"):
            load_model(path)
        assert time.process_time() - start < 5


def test_a_download_of_another_content_is_refused_before_it_is_opened(tmp_path, monkeypatch):
    import pooch

    class Answer:
        def __call__(self, url, output_file, pooch):
            Path(output_file).write_bytes(b"something else")

    retrieve = pooch.retrieve
    monkeypatch.setattr(pooch, "retrieve", lambda *arguments, **options: retrieve(*arguments, **options | {"downloader": Answer()}))
    monkeypatch.setattr(tarfile, "open", lambda *_: pytest.fail("it was opened"))
    with pytest.raises(data.DataError, match="could not be downloaded"):
        fetch_cifar10(tmp_path)


# ------------------------------------------------------------------------------------------------------ names and shells

@pytest.mark.parametrize("evil", EVIL)
def test_names_that_become_parts_of_paths_and_commands_are_known_ones(evil):
    for name in ("setting", "scale", "sampler", "spacing"):
        with pytest.raises(ValueError, match=name):
            Group(**{name: evil})
    for name in ("seed", "sampling_seed", "steps"):
        with pytest.raises(ValueError, match=name):
            Group(**{name: (evil,) if name == "steps" else evil})
    for beginning in ("s2dm10", "b1.0"):
        with pytest.raises(ValueError, match="scale"):
            Group(scale=beginning + evil)


def test_a_group_is_plain_words():
    for group in missing("full", Path("no such table")):
        assert re.fullmatch(r"[A-Za-z0-9.+-]+", group.name) and re.fullmatch(r"[A-Za-z0-9.+ -]+", group.options)
    assert all(re.fullmatch(r"[a-z0-9.-]+", setting) for setting in SETTINGS)


def test_every_word_of_the_pipeline_that_a_user_gives_is_quoted():
    text = (ROOT / "Snakefile").read_text(encoding="utf-8")
    commands = "".join(re.findall(r'"(?:[^"\\]|\\.)*"', re.sub(r"(?m)^(?!\s+(shell:|\")).*$", "", text)))
    words = re.findall(r"(?<!\{)\{([^{}]+)\}", commands)
    checked = {"threads", "LEDGER", "PYTHON", "params.options"}  # a number, and what was quoted or checked before
    assert len(words) > 15
    assert [word for word in words if word not in checked and not word.endswith(":q")] == []


@not_windows
@pytest.mark.slow
def test_paths_do_not_break_out_of_the_pipelines_commands(tmp_path):
    out, table = tmp_path / "it's; touch owned; x", tmp_path / '$(touch owned) "t.csv'
    done = subprocess.run([sys.executable, "-m", "snakemake", "-n", "-p", "--cores", "1", "--nolock", "--snakefile", ROOT / "Snakefile",
                           "--config", "size=dry", f"out={out}", f"table={table}"], cwd=tmp_path, capture_output=True, text=True,
                          env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"})
    assert done.returncode == 0, done.stderr[-2000:]
    commands = [line for line in (done.stdout + done.stderr).splitlines() if " -m s2dm_mini " in line]
    assert len(commands) >= 3
    for command in commands:
        words = shlex.split(command)
        assert "touch" not in words and "owned;" not in words
        assert {words[i + 1] for i, word in enumerate(words) if word == "--out"} <= {str(out)}
        assert {words[i + 1] for i, word in enumerate(words) if word == "--table"} <= {str(table)}
    assert not list(tmp_path.rglob("owned"))


@not_windows
@pytest.mark.parametrize("evil", [name for name in EVIL if "\n" not in name and "$" not in name])
def test_parameters_of_make_are_one_word(evil):
    make = ["make", "--no-print-directory", "-n", "-o", ".venv/pipeline.stamp", "reproduce-full", f"SIZE={evil}", f"CORES={evil}"]
    done = subprocess.run(make, cwd=ROOT, text=True, capture_output=True, check=True)
    commands = [shlex.split(line) for line in done.stdout.splitlines() if "snakemake" in line]
    assert [words[-1] for words in commands] == [f"size={evil}"] * 2
    assert commands[1][2] == evil


# ---------------------------------------------------------------------------------------------------------- servers

def command_of(target: str) -> list[str]:
    """What `make` runs for a target, with the programs of this environment."""
    done = subprocess.run(["make", "--no-print-directory", "-n", target], cwd=ROOT, capture_output=True, text=True, check=True)
    return [word.replace(".venv/bin", str(BIN), 1) for word in shlex.split(done.stdout.replace("\\\n", "").splitlines()[-1])]


def answer(port: int, path: str) -> tuple[int, str]:
    """Status, and where it sends to. A server may print its address shortly before it listens."""
    for left in range(50, -1, -1):
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
        try:
            connection.request("GET", path)
            break
        except ConnectionRefusedError:
            if not left:
                raise
            time.sleep(0.2)
    reply = connection.getresponse()
    reply.read()
    return reply.status, reply.getheader("Location") or ""


@not_windows
@pytest.mark.slow
@pytest.mark.parametrize(("target", "pages"), [("explorer", ("/", "/voila/render/a.ipynb")),
                                               ("lab", ("/lab", "/api/contents", "/api/kernels"))])
def test_servers_answer_this_machine_only_and_only_with_their_token(target, pages, tmp_path):
    if not (BIN / {"explorer": "voila", "lab": "jupyter"}[target]).exists():
        pytest.skip(f"what `make {target}` runs is not installed")
    small = tmp_path / "a.ipynb"  # in place of a notebook that takes its time
    nbformat.write(nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("1 + 1")]), small)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    folders = {f"JUPYTER_{kind}_DIR": str(tmp_path / kind.lower()) for kind in ("CONFIG", "DATA", "RUNTIME")}
    arguments = [str(small) if word.startswith("notebooks/") else word for word in command_of(target)]
    arguments += [f"--port={port}", *(["--no-browser", "--allow-root"] if target == "lab" else [])]
    log = tmp_path / "log.txt"
    server = subprocess.Popen(arguments, cwd=tmp_path, stdout=log.open("w", encoding="utf-8"), stderr=subprocess.STDOUT,
                              env={name: value for name, value in os.environ.items() if name != "JUPYTER_TOKEN"} | folders)
    try:
        end = time.monotonic() + 120
        while not (address := re.search(rf"http://127\.0\.0\.1:{port}\S*[?&]token=([0-9a-f]{{40,}})", log.read_text(encoding="utf-8"))):
            assert server.poll() is None and time.monotonic() < end, log.read_text(encoding="utf-8")[-2000:]
            time.sleep(0.2)
        token = address[1]
        assert target == "explorer" or "/lab/tree/notebooks/00_start_here.ipynb?" in address[0], "the address does not lead to notebook 00"
        for page in pages:
            for given in ("", f"?token={'0' * len(token)}"):
                code, elsewhere = answer(port, page + given)
                assert code == 403 or (code == 302 and elsewhere.startswith("/login")), f"{page}{given}: {code} {elsewhere}"
        assert answer(port, f"{pages[0]}?token={token}")[0] == 200
        if Path("/proc/net/tcp").exists():
            sockets = [line.split() for line in Path("/proc/net/tcp").read_text(encoding="utf-8").splitlines()[1:]]
            listening = {line[1].partition(":")[0] for line in sockets if line[1].endswith(f":{port:04X}") and line[3] == "0A"}
            assert listening == {"0100007F"}, "it listens to other machines"
    finally:
        server.terminate()
        server.wait(60)


# ------------------------------------------------------------------------------------------------------------- pins

def test_every_pin_is_exact_and_the_audit_of_them_is_described():
    lines = [line for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines() if line and not line.startswith("#")]
    assert len(lines) > 100 and all(re.fullmatch(r"[A-Za-z0-9._-]+==[0-9][A-Za-z0-9.]*", line) for line in lines)
    assert b"pip-audit" in (ROOT / "SECURITY.md").read_bytes() and b"SECURITY.md" in (ROOT / "CONTRIBUTING.md").read_bytes()
