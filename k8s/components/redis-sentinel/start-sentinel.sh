#!/bin/sh
# Starts the Sentinel of this pod, HOST; two of three must agree that the master is away. It keeps
# what it has found, and looks names up anew, since pods change their addresses.
set -eu
umask 077
data=${DATA:-/data}
if [ ! -f "$data/sentinel.conf" ]; then
    cat >"$data/sentinel.conf" <<CONF
bind ${BIND:-* -::*}
port ${SENTINEL_PORT:-26379}
dir $data
sentinel resolve-hostnames yes
sentinel announce-hostnames yes
sentinel announce-ip $HOST
sentinel announce-port ${SENTINEL_PORT:-26379}
sentinel monitor statistics $FIRST ${PORT:-6379} 2
sentinel auth-pass statistics $PASSWORD
sentinel down-after-milliseconds statistics ${DOWN_AFTER_MS:-5000}
sentinel failover-timeout statistics 15000
requirepass $PASSWORD
CONF
fi
exec redis-server "$data/sentinel.conf" --sentinel
