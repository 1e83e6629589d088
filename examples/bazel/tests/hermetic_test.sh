#!/bin/bash
# What an action cannot see cannot change its result.
set -u
failed=0
refuse() { echo "not hermetic: $*" >&2; failed=1; }

if (exec 3<>/dev/tcp/192.0.2.1/80) 2>/dev/null; then refuse "the network is reachable"; fi
[ "$(ls -d /proc/[0-9]* | wc -l)" -lt 20 ] || refuse "processes of the machine are visible"
if touch /usr/kiln-was-here 2>/dev/null; then refuse "/usr can be written"; fi
[ -z "${SSH_AUTH_SOCK:-}" ] || refuse "the environment of the server leaks"
exit $failed
