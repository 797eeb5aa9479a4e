#!/bin/sh
# healthy.sh node       it answers, and when it is a replica it is linked to its primary
# healthy.sh sentinel   it knows enough sentinels for a failover
# healthy.sh cluster    every slot is served, as each of the nodes sees it
# Sentinels have no password, and an empty one would be sent, too. (valkey-cli 8.1 only knows the older name.)
if [ "$1" != sentinel ] && [ -n "${PASSWORD:-}" ]; then export VALKEYCLI_AUTH="$PASSWORD" REDISCLI_AUTH="$PASSWORD"; fi
case $1 in
  node)
    state=$(valkey-cli -p "$PORT" info replication) || exit 1
    case $state in *role:master* | *master_link_status:up*) exit 0 ;; esac
    ;;
  sentinel)
    case $(valkey-cli -p "$PORT" sentinel ckquorum valkeep) in OK*) exit 0 ;; esac
    ;;
  cluster)
    served=0
    for node in $NODES; do
      case $(valkey-cli -h "${node%:*}" -p "${node#*:}" cluster info) in *cluster_state:ok*) served=$((served + 1)) ;; esac
    done
    # a node that is down says nothing; the cluster is well as long as a majority says so
    [ $((served * 2)) -gt "$(echo "$NODES" | wc -w)" ] && exit 0
    ;;
esac
exit 1
