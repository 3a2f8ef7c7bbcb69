#!/bin/sh
# What Snakemake asks about a job: running, success or failed, from scontrol's word for its state.
# A job that Slurm no longer knows has ended some time ago; whether it left its output, Snakemake checks by itself.
state=$(scontrol --oneliner show job "$1" 2>/dev/null | sed -n 's/.* JobState=\([A-Z_]*\).*/\1/p')
case "$state" in
  PENDING|CONFIGURING|RUNNING|COMPLETING|SUSPENDED|REQUEUED|RESIZING|STOPPED) echo running ;;
  COMPLETED|"") echo success ;;
  *) echo failed ;;
esac
