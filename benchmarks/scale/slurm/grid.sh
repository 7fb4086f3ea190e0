#!/usr/bin/env bash
# A small grid through SLURM with one job cancelled in mid-run, under loopback.sh or on a cluster:
#
#     grid.sh STORE [OPTION=VALUE,...]        (options of the executor slurm)
#
# It ends with the full table: what the cancelled job has not made is ordered again. The programs are those on the path.
set -euo pipefail

store=$1
options=cpus=1,slots=2,time=10,memory=2${2:+,$2}
shown() { echo "\$ $*" && "$@"; }

shown sinfo --format='%P %T %D nodes, %c cores'
words=(--method 'dm[batch_real=64]' --pool 'single[main=convnet[width=16]]' --pool 'single[main=lenet]' --iterations 400
    --distillations 2 --evaluator 'plain[protocol=quick]' --architecture mlp --architecture lenet --students 2 --checkpoint-every 1)
shown ddbench run "${words[@]}" --executor "slurm[$options]" --store "$store" &
run=$!
until ddbench status --store "$store" 2>/dev/null | grep -q ' 2 running'; do
    kill -0 $run
    sleep 1
done
sleep 12 # some checkpoints, and a heartbeat that reports them
shown squeue --array --format='%.8i %.24j %.9T %.8M'
shown ddbench status --store "$store"
shown scancel "$(squeue --noheader --array --states=RUNNING --format=%i | head -n 1)"
wait $run
shown ddbench status --store "$store"
shown ddbench results verify --store "$store"
