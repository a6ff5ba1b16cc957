#!/usr/bin/env bash
# A run on all workers of a Cloud TPU slice. Start it from a clone; the committed files are
# copied to the workers.
#   export TPU=name ZONE=europe-west4-b
#   experiments/launch/tpu_vm.sh install
#   experiments/launch/tpu_vm.sh start search --workdir gs://bucket/run --train.architectures 16
#   experiments/launch/tpu_vm.sh log     # shows the log of process 0, until Ctrl-C
#   experiments/launch/tpu_vm.sh stop    # stops where all is saved; start continues
set -euo pipefail

# on WORKER COMMAND: runs a command on a worker, or on "all".
on() {
  gcloud compute tpus tpu-vm ssh "$TPU" --zone="$ZONE" --worker="$1" --command="$2"
}

case "${1:-}" in
  install)
    archive=$(mktemp -d)/jaxhypernas.tar.gz
    git archive --prefix=jaxhypernas/ --output="$archive" HEAD
    gcloud compute tpus tpu-vm scp "$archive" "$TPU": --zone="$ZONE" --worker=all
    # uv brings a Python of its own: that of the slices' images is older than 3.11.
    on all "tar xzf jaxhypernas.tar.gz && python3 -m pip install --quiet --user uv &&
      python3 -m uv venv --quiet --clear --python 3.12 venv &&
      python3 -m uv pip install --quiet --python venv/bin/python -e './jaxhypernas[tpu,gcs]'"
    ;;
  start)
    words=$(printf ' %q' "$2" --distributed "${@:3}")
    on all "nohup venv/bin/jaxhypernas$words > run.log 2>&1 < /dev/null & echo \$! > run.pid"
    ;;
  log) on 0 "tail -n +1 -f run.log" ;;
  stop) on all "kill -TERM \$(cat run.pid)" ;;
  *)
    sed -n '2,8s/^# *//p' "$0" >&2
    exit 2
    ;;
esac
