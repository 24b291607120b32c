#!/bin/sh
# Every relative link of every page leads to a file.
cd "$(dirname "$0")/public" || exit 1
dead=$(find . -name '*.html' | while read -r page; do
  grep -oE '(href|src)="[^"]*"' "$page" | sed -E 's/^[a-z]+="([^"#?]*).*/\1/' | grep -vE '^($|/|[a-z]+:)' |
    while read -r link; do
      target="$(dirname "$page")/$link"
      [ -e "$target" ] || echo "$page: $link"
    done
done)
[ -f index.html ] || dead="$dead index.html is missing"
[ -z "$dead" ] || { echo "dead links: $dead" >&2; exit 1; }
echo ok
