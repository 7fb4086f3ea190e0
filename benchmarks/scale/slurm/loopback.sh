#!/usr/bin/env bash
# Brings up a real SLURM on this machine alone, runs a command under it, and takes it down again:
#
#     sudo benchmarks/scale/slurm/loopback.sh COMMAND...
#
# One controller, one node, no accounting, no cgroups; all of it, keys and logs included, in a temporary folder, which
# stays where KEEP=1. It needs root (slurmd starts jobs as their users) and Debian's packages slurmctld, slurmd,
# slurm-client and munge; nothing of an installed SLURM is touched.
set -euo pipefail

root=$(mktemp -d /tmp/loopback-slurm.XXXXXX)
chmod 755 "$root"
host=$(hostname -s)
cores=$(nproc)
memory=$(awk '/MemTotal/ {print int($2 / 1024 * 0.9)}' /proc/meminfo)
started=()

down() {
    status=$?
    scancel --quiet --user="$(id -un)" 2>/dev/null || true
    for _ in {1..60}; do [[ $(squeue --noheader 2>/dev/null) ]] && sleep 0.5; done
    for ((i = ${#started[@]} - 1; i >= 0; i--)); do
        kill "${started[i]}" 2>/dev/null || true
        wait "${started[i]}" 2>/dev/null || true
    done
    if [[ $status != 0 ]]; then tail -n 20 "$root"/*.log >&2; fi
    if [[ -z ${KEEP:-} ]]; then rm -rf "$root"; else echo "kept: $root" >&2; fi
}
trap down EXIT

mkdir "$root"/{state,spool,munge}
head -c 1024 /dev/urandom >"$root/munge/key"
chmod 400 "$root/munge/key"
cat >"$root/slurm.conf" <<CONF
ClusterName=loopback
SlurmctldHost=$host(127.0.0.1)
SlurmctldPort=16817
SlurmdPort=16818
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket=$root/munge/socket
CryptoType=crypto/munge
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
StateSaveLocation=$root/state
SlurmdSpoolDir=$root/spool
SlurmctldPidFile=$root/slurmctld.pid
SlurmdPidFile=$root/slurmd.pid
SlurmctldLogFile=$root/slurmctld.log
SlurmdLogFile=$root/slurmd.log
KillWait=10
MinJobAge=10
ReturnToService=2
MpiDefault=none
NodeName=$host NodeAddr=127.0.0.1 CPUs=$cores RealMemory=$memory State=UNKNOWN
PartitionName=main Nodes=$host Default=YES MaxTime=INFINITE State=UP
CONF
export SLURM_CONF=$root/slurm.conf

munged --foreground --force --key-file="$root/munge/key" --socket="$root/munge/socket" --pid-file="$root/munge/pid" \
    --log-file="$root/munged.log" --seed-file="$root/munge/seed" &>"$root/munged.out" &
started+=($!)
until [[ -S $root/munge/socket ]]; do sleep 0.1; done
slurmctld -D -i &>/dev/null &
started+=($!)
slurmd -D -N "$host" &>/dev/null &
started+=($!)
for _ in {1..300}; do
    [[ $(sinfo --noheader --format=%T 2>/dev/null) == idle ]] && break
    sleep 0.1
done
"$@"
