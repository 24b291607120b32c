#!/usr/bin/env bash
# Run once for every request: its body is standard input, what this writes is the answer.
# Http_Method, Http_Path, Http_Query and Http_<Header> are in the environment.
set -euo pipefail

echo "Hello from bash: ${Http_Method:-} ${Http_Path:-}"
exec cat
