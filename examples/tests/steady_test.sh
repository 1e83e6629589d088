#!/bin/bash
echo "as always"
