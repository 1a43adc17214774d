#!/bin/sh
# Starts the Sentinel of this pod, HOST; two of three must agree that the master is away. It keeps
# what it has found, but for passwords, and looks names up anew, since pods change their addresses.
set -eu
case "$PASSWORD" in
replace-me*) echo "the Secret still has its placeholder; see docs/operations.md" >&2; exit 1 ;;
esac
umask 077
data=${DATA:-/data}
if [ -f "$data/sentinel.conf" ]; then
    sed -E '/^(requirepass|user default|sentinel auth-pass) /d' "$data/sentinel.conf"
else
    cat <<CONF
bind ${BIND:-* -::*}
port ${SENTINEL_PORT:-26379}
dir $data
sentinel resolve-hostnames yes
sentinel announce-hostnames yes
sentinel announce-ip $HOST
sentinel announce-port ${SENTINEL_PORT:-26379}
sentinel monitor statistics $FIRST ${PORT:-6379} 2
sentinel down-after-milliseconds statistics ${DOWN_AFTER_MS:-5000}
sentinel failover-timeout statistics 15000
CONF
fi >"$data/sentinel.conf.new"
cat >>"$data/sentinel.conf.new" <<CONF
sentinel auth-pass statistics $PASSWORD
requirepass $PASSWORD
CONF
mv "$data/sentinel.conf.new" "$data/sentinel.conf"
exec redis-server "$data/sentinel.conf" --sentinel
