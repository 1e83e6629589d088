#!/bin/sh
# Passes where a feature is fine. A flaky one fails in one of three runs: a random number stands for a race, a port, a clock.
case $(cat "$1") in
  bad)
    echo "$1 is bad" >&2
    exit 1
    ;;
  flaky)
    byte=$(od -An -N1 -tu1 /dev/urandom)
    if [ $((byte % 3)) -eq 0 ]; then
      echo "$1 had bad luck" >&2
      exit 1
    fi
    ;;
esac
