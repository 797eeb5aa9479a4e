#!/bin/sh
# Starts a data node. Its configuration is put together at every start, so that a change in conf/ needs only a restart. One fact is kept from the
# old one: whom this node follows. Sentinel orders CONFIG REWRITE after a failover, and a node that forgot would come back as a second primary.
set -eu
umask 077
file=/data/valkey.conf
if [ -f "$file" ]; then
  following=$(grep '^replicaof ' "$file" || true)
else
  following=${REPLICA_OF:+replicaof $REPLICA_OF}
fi
{
  cat /conf/valkey.conf "/conf/$TOPOLOGY.conf"
  echo "port $PORT"
  if [ "$TOPOLOGY" = cluster ]; then
    printf '%s\n' "cluster-announce-ip $ANNOUNCE_IP" "cluster-announce-port $PORT" "cluster-port $BUS" "cluster-announce-bus-port $BUS"
  else
    printf '%s\n' "replica-announce-ip $ANNOUNCE_IP" "replica-announce-port $PORT"
  fi
  if [ -n "${PASSWORD:-}" ]; then printf '%s\n' "requirepass \"$PASSWORD\"" "primaryauth \"$PASSWORD\""; fi
  printf '%s\n' "$following" "${SETTINGS:-}"
} >"$file.new"
mv "$file.new" "$file"
cd /data
set -- valkey-server "$file"
# the official images' entry point gives /data to the user valkey and starts the server as this user
if command -v docker-entrypoint.sh >/dev/null; then set -- docker-entrypoint.sh "$@"; fi
exec "$@"
