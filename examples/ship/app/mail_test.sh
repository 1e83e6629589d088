#!/bin/bash
# Flaky: in two of three runs the mail server (a random number stands for it) hangs up, whatever the inputs are.
byte=$(od -An -N1 -tu1 /dev/urandom)
if ((byte % 3)); then
  echo "mail server: connection reset by peer" >&2
  exit 1
fi
