#!/bin/sh
# Starts the Redis of this pod, HOST, behind the master that a Sentinel at SENTINELS names. Before
# there is one, FIRST is the master, so that all pods think the same.
set -eu
master=$(timeout 5 redis-cli -h "$SENTINELS" -p "${SENTINEL_PORT:-26379}" \
    sentinel get-master-addr-by-name statistics 2>/dev/null | head -n 1) || master=
case "$master" in
"" | *[!A-Za-z0-9.-]*) master=$FIRST ;;  # nothing, or an error
esac
set -- --replica-announce-ip "$HOST" --replica-announce-port "${PORT:-6379}"
[ "$master" = "$HOST" ] || set -- "$@" --replicaof "$master" "${PORT:-6379}"
exec sh "${0%/*}/start-redis.sh" "$@"
