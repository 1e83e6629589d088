#!/bin/bash
echo "this is stdout"
echo "this is stderr" >&2
exit 3
