# snakemake --cores 2 --config size=cpu     trains, samples and measures whatever data/results/ledger-cpu.csv lacks
#
# size:  dry (does it run?), quick (a CPU, minutes), cpu (a CPU, a night) or full (one GPU)
# parts: only the first so many parts of the plan (s2dm_mini/ledger.py), which lists the most telling ones first
# out:   folder for networks and samples, runs/ledger by default
# table: the table to fill, data/results/ledger-SIZE.csv by default
# Stopped at any moment and started again (with --rerun-incomplete) it goes on where it was; what the table holds is never done twice.
import shlex
import sys
from pathlib import Path

from s2dm_mini.ledger import missing, table_of

SIZE, OUT = config.get("size", "quick"), Path(config.get("out", "runs/ledger"))
TABLE = Path(config.get("table", table_of(SIZE)))
LEDGER = f"{shlex.quote(sys.executable)} -m s2dm_mini ledger"
TODO = {group.name: group for group in missing(SIZE, TABLE, parts=int(config["parts"]) if "parts" in config else None)}


rule all:
    input: expand(f"{OUT}/{SIZE}/measured/{{group}}", group=TODO) or TABLE


rule train:
    output: f"{OUT}/{SIZE}/networks/{{setting}}.{{seed}}/model.safetensors"
    wildcard_constraints: seed="[0-9]+"
    shell: "OMP_NUM_THREADS={threads} {LEDGER} train --size {SIZE} --setting {wildcards.setting} --seed {wildcards.seed} --out {OUT}"


rule measure:
    input: lambda wildcards: str(TODO[wildcards.group].network_path(SIZE, OUT))
    output: touch(f"{OUT}/{SIZE}/measured/{{group}}")
    params: options=lambda wildcards: TODO[wildcards.group].options
    shell:
        "export OMP_NUM_THREADS={threads}; {LEDGER} sample --size {SIZE} {params.options} --out {OUT} --table {TABLE} && "
        "{LEDGER} measure --size {SIZE} {params.options} --out {OUT} --table {TABLE}"
