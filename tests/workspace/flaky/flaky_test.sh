#!/bin/bash
now=$(date +%s)
echo "now $now, ready at ${READY_AT:?}"
[ "$now" -ge "$READY_AT" ] && exit
sleep $((READY_AT - now < 2 ? READY_AT - now : 2))
exit 1
