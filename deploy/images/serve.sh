#!/bin/sh
# Join the Ray cluster at $RAY_HEAD as a node without resources, then serve on it: a driver needs a raylet beside it.
# Further arguments go to `heavy up`.
set -eu
: "${RAY_HEAD:?set RAY_HEAD to host:port of the Ray head}"
ray start --address "$RAY_HEAD" --num-cpus 0 --num-gpus 0 --disable-usage-stats
RAY_ADDRESS=$RAY_HEAD
export RAY_ADDRESS
exec heavy up --keep-replicas "$@"
