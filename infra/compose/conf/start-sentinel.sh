#!/bin/sh
# Starts a sentinel. The first start makes its own copy of conf/sentinel.conf; later starts go on with what it has learned.
set -eu
umask 077
file=/data/sentinel.conf
if [ ! -f "$file" ]; then
  {
    sed "s/^sentinel monitor valkeep [^ ]* [^ ]* /sentinel monitor valkeep $PRIMARY /" /conf/sentinel.conf
    if [ -n "${PASSWORD:-}" ]; then echo "sentinel auth-pass valkeep \"$PASSWORD\""; fi
    printf '%s\n' "port $PORT" "sentinel announce-ip $ANNOUNCE_IP" "sentinel announce-port $PORT" "${SETTINGS:-}"
  } >"$file.new"
  mv "$file.new" "$file"
fi
cd /data
set -- valkey-server "$file" --sentinel
if command -v docker-entrypoint.sh >/dev/null; then set -- docker-entrypoint.sh "$@"; fi
exec "$@"
