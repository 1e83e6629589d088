#!/bin/bash
exec 3<>"/dev/tcp/127.0.0.1/$ORACLE"
read -r answer <&3
echo "the oracle says $answer"
[ "$answer" = pass ]
