#!/bin/sh
# Starts one Redis: PASSWORD from a Secret, at most MAXMEMORY. What is written survives a restart;
# when memory is full writes fail, and nothing is thrown away.
set -eu
case "$PASSWORD" in
replace-me*) echo "the Secret still has its placeholder; see docs/operations.md" >&2; exit 1 ;;
esac
umask 077
data=${DATA:-/data}
cat >"$data/redis.conf" <<CONF
bind ${BIND:-* -::*}
port ${PORT:-6379}
dir $data
maxmemory $MAXMEMORY
maxmemory-policy noeviction
appendonly yes
appendfsync everysec
save 900 1
requirepass $PASSWORD
masterauth $PASSWORD
rename-command DEBUG ""
CONF
exec redis-server "$data/redis.conf" "$@"
