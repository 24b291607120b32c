#!/bin/sh
# The request's body is standard input, what this writes is the answer.
echo "Hello from a Dockerfile: ${Http_Method:-} ${Http_Path:-}"
exec cat
