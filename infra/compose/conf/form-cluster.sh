#!/bin/sh
# Makes a cluster of nodes that know nothing of each other, and waits until it serves every slot. Run again on a formed one it changes nothing.
# NODES: host:port of each, the primaries of the SHARDS first, then replicas in the same order.
set -eu
# an empty one would be sent, too
if [ -n "${PASSWORD:-}" ]; then export VALKEYCLI_AUTH="$PASSWORD" REDISCLI_AUTH="$PASSWORD"; fi
end=$(($(date +%s) + 60))

# ask NODE WORD…
ask() {
  node=$1
  shift
  valkey-cli -h "${node%:*}" -p "${node#*:}" "$@"
}

# wait_for TEXT NODE WORD…: until the node's reply has a line with TEXT
wait_for() {
  text=$1
  shift
  until ask "$@" | grep -q "$text"; do
    if [ "$(date +%s)" -ge "$end" ]; then
      echo "no '$text' in the reply of $* within 60 s. CLUSTER NODES of $1:" >&2
      ask "$1" cluster nodes >&2
      exit 1
    fi
    sleep 0.2
  done
}

set -- $NODES
count=$#
first=$1

if ask "$first" cluster info | grep -q cluster_state:ok; then
  echo "formed already"
  exit 0
fi

for one in "$@"; do
  [ "$one" = "$first" ] || ask "$first" cluster meet "${one%:*}" "${one#*:}" >/dev/null
done
number=0
for one in "$@"; do
  [ "$number" -lt "$SHARDS" ] || break
  ask "$one" cluster addslotsrange $((number * 16384 / SHARDS)) $(((number + 1) * 16384 / SHARDS - 1)) >/dev/null
  number=$((number + 1))
done
for one in "$@"; do wait_for "cluster_known_nodes:$count" "$one" cluster info; done

number=0
for one in "$@"; do
  number=$((number + 1))
  [ "$number" -gt "$SHARDS" ] || continue
  eval "primary=\${$(((number - 1) % SHARDS + 1))}"
  # refused, and asked again, as long as the news of that primary has not arrived
  wait_for OK "$one" cluster replicate "$(ask "$primary" cluster myid)"
  wait_for master_link_status:up "$one" info replication
done
for one in "$@"; do wait_for cluster_state:ok "$one" cluster info; done
echo "formed: $count nodes, $SHARDS shards"
