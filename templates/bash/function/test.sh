#!/usr/bin/env bash
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

answer=$(echo "some body" | Http_Method=POST Http_Path=/x bash handler.sh)
expected=$'Hello from bash: POST /x\nsome body'
[[ $answer == "$expected" ]] || { echo "not as expected: $answer" >&2; exit 1; }
echo "ok"
