#!/bin/sh
cd "$(dirname "$0")" || exit 1
answer=$(echo body | Http_Method=POST Http_Path=/x sh handler.sh)
[ "$answer" = "Hello from a Dockerfile: POST /x
body" ] || { echo "not as expected: $answer" >&2; exit 1; }
echo ok
