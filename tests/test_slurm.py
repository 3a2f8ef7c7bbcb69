"""The ledger's pipeline on Slurm: what its jobs ask for; and on a real Slurm, slurmctld, slurmd and munged of this machine.

The latter is opt-in, since it writes /etc/slurm/slurm.conf (where a job's own commands look for it) and needs root and Debian's
slurm-wlm and munge:

    apt-get install slurm-wlm munge && S2DM_SLURM=1 pytest tests/test_slurm.py
"""
import os
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from s2dm_mini.study.ledger import KEY
from s2dm_mini.study.tables import read_rows

ROOT = Path(__file__).resolve().parent.parent
CONF = Path("/etc/slurm/slurm.conf")

real_slurm = pytest.mark.skipif(os.environ.get("S2DM_SLURM") != "1", reason="writes /etc/slurm/slurm.conf: set S2DM_SLURM=1 to allow it")


@pytest.fixture
def slurm(tmp_path):
    """A cluster of one node, this machine; gone after the test."""
    for program in ("slurmctld", "slurmd", "munged", "sbatch"):
        if not shutil.which(program):
            pytest.skip(f"{program} is not installed: apt-get install slurm-wlm munge")
    if CONF.exists() and "s2dm_mini test" not in CONF.read_text(encoding="utf-8"):
        pytest.skip(f"{CONF} belongs to a real cluster")
    host, munge = socket.gethostname(), tmp_path / "munge.socket"
    key = tmp_path / "munge.key"
    key.write_bytes(os.urandom(128))
    key.chmod(0o600)
    started = []

    def start(*command):
        started.append(subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL))

    start("munged", "--foreground", "--force", f"--key-file={key}", f"--socket={munge}", f"--pid-file={tmp_path}/munged.pid",
          f"--log-file={tmp_path}/munged.log", f"--seed-file={tmp_path}/munged.seed")
    CONF.parent.mkdir(parents=True, exist_ok=True)
    CONF.write_text(f"""# s2dm_mini test
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmUser=root
SlurmdUser=root
SlurmctldPort=26817
SlurmdPort=26818
AuthType=auth/munge
CryptoType=crypto/munge
AuthInfo=socket={munge}
StateSaveLocation={tmp_path}/state
SlurmdSpoolDir={tmp_path}/spool
SlurmctldPidFile={tmp_path}/slurmctld.pid
SlurmdPidFile={tmp_path}/slurmd.pid
SlurmctldLogFile={tmp_path}/slurmctld.log
SlurmdLogFile={tmp_path}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
ReturnToService=2
MpiDefault=none
NodeName={host} NodeAddr=127.0.0.1 CPUs={os.cpu_count()} State=UNKNOWN
PartitionName=all Nodes={host} Default=YES MaxTime=INFINITE State=UP
""", encoding="utf-8")
    for folder in ("state", "spool"):
        (tmp_path / folder).mkdir()
    start("slurmctld", "-D", "-i")
    start("slurmd", "-D")
    for _ in range(60):
        found = subprocess.run(["sinfo", "--noheader", "--format=%t"], capture_output=True, text=True)
        if found.stdout.strip() == "idle":
            break
        time.sleep(0.5)
    else:
        pytest.fail(f"the node is {found.stdout.strip() or found.stderr.strip()!r}, not idle")
    yield
    subprocess.run(["scancel", "--state=RUNNING,PENDING", "--user=root"], capture_output=True)
    for process in reversed(started):
        process.terminate()
        process.wait(timeout=20)
    CONF.unlink()


@pytest.mark.parametrize(("size", "asks"), [("full", True), ("dry", False)])
def test_jobs_of_the_full_ledger_ask_for_a_gpu(size, asks, tmp_path):
    """With an sbatch that writes down what it is asked and a scontrol that says that the job failed."""
    programs = {"sbatch": f'echo "$@" >> {tmp_path}/asked.txt; echo 1', "scontrol": "echo ' JobState=FAILED '", "scancel": ":"}
    for name, said in programs.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{said}\n", encoding="utf-8")
        (tmp_path / name).chmod(0o755)
    command = [sys.executable, "-m", "snakemake", "--profile", "s2dm_mini/slurm", "--nolock", "--jobs", "1",
               "--seconds-between-status-checks", "1", "--config", f"size={size}", f"out={tmp_path}/runs", f"table={tmp_path}/ledger.csv"]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode != 0 and (tmp_path / "asked.txt").exists(), done.stderr
    [asked] = (tmp_path / "asked.txt").read_text(encoding="utf-8").splitlines()
    assert "--job-name=s2dm-train" in asked and ("--gres=gpu:1" in asked.split()) == asks


@real_slurm
@pytest.mark.slow
def test_the_pipeline_runs_on_slurm(slurm, tmp_path):
    table = tmp_path / "ledger-dry.csv"
    command = [sys.executable, "-m", "snakemake", "--profile", "s2dm_mini/slurm", "--nolock",
               "--config", "size=dry", f"out={tmp_path}/runs", f"table={table}"]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "S2DM_DATA": str(tmp_path / "data")}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    rows = read_rows(table)
    assert len(rows) == 5 == len({tuple(row[name] for name in KEY) for row in rows})
    jobs = subprocess.run(["scontrol", "--oneliner", "show", "jobs"], capture_output=True, text=True).stdout.splitlines()
    assert len(jobs) == 5 and all("JobState=COMPLETED" in job for job in jobs), "two trainings and three measurements, each a job of Slurm"
