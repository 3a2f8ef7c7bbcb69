# snakemake --cores 2 --config size=cpu     trains, samples and measures whatever data/results/ledger-cpu.csv lacks
#
# size:  dry (does it run?), quick (a CPU, minutes), cpu (a CPU, a night), scratch (a CPU, some nights), full (one GPU) or hub (a pipeline
#        of diffusers without training; pipeline: its folder or its name on the hub, google/ddpm-cifar10-32 by default)
# parts: number of parts of the plan (s2dm_mini/study/plan.py) to run; it lists the most telling ones first
# out:   folder for networks and samples, runs/ledger by default
# table: the table to fill, data/results/ledger-SIZE.csv by default
# What these hold is quoted (:q) wherever a shell sees it; params.options are words that s2dm_mini.study.plan.Group has checked.
# Stopped at any moment and started again (with --rerun-incomplete) it goes on where it was; what the table holds is never done twice.
import shlex
import sys
from pathlib import Path

from s2dm_mini.checkpoints import sha256
from s2dm_mini.study.ledger import missing, table_of

SIZE, OUT = config.get("size", "quick"), Path(config.get("out", "runs/ledger"))
TABLE = Path(config.get("table", table_of(SIZE)))
PYTHON = shlex.quote(sys.executable)
LEDGER = f"{PYTHON} -m s2dm_mini ledger"
PIPELINE = ["--pipeline", config["pipeline"]] if "pipeline" in config else []
LACKING = {group.name: group for group in missing(SIZE, TABLE, parts=int(config["parts"]) if "parts" in config else None)}
GPU = "--gres=gpu:1" if SIZE == "full" else ""  # for Slurm, see s2dm_mini/slurm/config.yaml

VERDICTS = TABLE.with_name(f"verdicts-{SIZE}.md")
FRESH = not LACKING and TABLE.exists() and VERDICTS.exists() and sha256(TABLE) in VERDICTS.read_text()
# Notebook 08 shows the tables that are in their place; for one elsewhere only the verdicts are written.
PARAMETERS = {} if "table" in config else {"quick": "-p dataset shapes -p preset tiny", "scratch": "", "full": "-p profile full"}
NOTEBOOK = [f"{OUT}/{SIZE}/08_reproduction.ipynb"] if SIZE in PARAMETERS else []


rule all:
    input: TABLE if FRESH else [VERDICTS, *NOTEBOOK]


rule train:
    output: f"{OUT}/{SIZE}/networks/{{setting}}.{{seed}}/model.safetensors"
    wildcard_constraints: seed="[0-9]+"
    resources: slurm_gpu=GPU
    shell:
        "OMP_NUM_THREADS={threads} {LEDGER} train --size {SIZE:q} --setting {wildcards.setting:q} --seed {wildcards.seed:q} --out {OUT:q} "
        "{PIPELINE:q}"


rule measure:
    input: lambda wildcards: str(LACKING[wildcards.group].network_path(SIZE, OUT))
    output: touch(f"{OUT}/{SIZE}/measured/{{group}}")
    params: options=lambda wildcards: LACKING[wildcards.group].options
    resources: slurm_gpu=GPU
    shell:
        "export OMP_NUM_THREADS={threads}; {LEDGER} sample --size {SIZE:q} {params.options} --out {OUT:q} --table {TABLE:q} && "
        "{LEDGER} measure --size {SIZE:q} {params.options} --out {OUT:q} --table {TABLE:q}"


rule verdicts:
    input: expand(f"{OUT}/{SIZE}/measured/{{group}}", group=LACKING) or TABLE
    output: VERDICTS
    shell: "{PYTHON} -m s2dm_mini verdicts --size {SIZE:q} --table {TABLE:q}"


if NOTEBOOK:

    rule notebook:
        input: VERDICTS
        output: NOTEBOOK
        params: options=PARAMETERS[SIZE]
        shell: "{PYTHON} -m papermill --cwd notebooks -k python3 {params.options} notebooks/08_reproduction.ipynb {output:q}"
