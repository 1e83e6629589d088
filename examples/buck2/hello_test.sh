#!/bin/sh
set -eu
[ "$("$1" Kiln)" = "Hello, Kiln!" ]
