#!/bin/sh
# Start a one-node Slurm on this machine, to test hydra/launcher=slurm for real. Debian or Ubuntu, as root, for tests only:
#   apt-get update && apt-get install -y --no-install-recommends slurm-wlm munge
#   tests/slurm.sh start && python -m pytest -m slurm; tests/slurm.sh stop
set -eu
state=/tmp/aseqdip-slurm
case "${1:-}" in
start)
    for program in munged slurmctld slurmd sinfo; do
        command -v "$program" > /dev/null || { echo "$program is missing: apt-get install slurm-wlm munge" >&2; exit 1; }
    done
    if [ -f /etc/slurm/slurm.conf ] && ! grep -q "$state" /etc/slurm/slurm.conf; then
        echo "/etc/slurm/slurm.conf is there already: this machine has a Slurm of its own" >&2
        exit 1
    fi
    name=$(hostname -s)
    mkdir -p "$state/spool" "$state/control" /etc/slurm /run/munge
    cat > /etc/slurm/slurm.conf <<END
ClusterName=test
SlurmctldHost=$name(127.0.0.1)
SlurmUser=root
AuthType=auth/munge
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
ReturnToService=2
SlurmctldPidFile=$state/slurmctld.pid
SlurmdPidFile=$state/slurmd.pid
SlurmctldLogFile=$state/slurmctld.log
SlurmdLogFile=$state/slurmd.log
StateSaveLocation=$state/control
SlurmdSpoolDir=$state/spool
NodeName=$name NodeAddr=127.0.0.1 CPUs=$(nproc) State=UNKNOWN
PartitionName=test Nodes=$name Default=YES MaxTime=INFINITE State=UP
END
    [ -f /etc/munge/munge.key ] || { dd if=/dev/urandom of=/etc/munge/munge.key bs=1 count=1024 2> /dev/null; }
    chown munge: /etc/munge/munge.key /run/munge
    chmod 400 /etc/munge/munge.key
    chmod 755 /run/munge
    runuser -u munge -- munged
    slurmctld -c
    slurmd
    for _ in 1 2 3 4 5 6 7 8 9 10; do
        if sinfo --noheader --format=%T | grep -q idle; then sinfo; exit 0; fi
        sleep 1
    done
    sinfo
    tail -n 20 "$state"/*.log
    exit 1
    ;;
stop)
    for file in "$state"/slurmd.pid "$state"/slurmctld.pid /run/munge/munged.pid; do
        [ -f "$file" ] && kill "$(cat "$file")" || true
    done
    ;;
*)
    echo "usage: $0 start | stop" >&2
    exit 2
    ;;
esac
