#!/usr/bin/env bash
# Prints the section of a version of CHANGELOG.md, without its heading. Fails if there is none.
set -euo pipefail
version=${1:?usage: packaging/notes.sh VERSION}
cd "$(dirname "$0")/.."
# The heading is "## 1.2.3", optionally followed by a date.
awk -v heading="## $version" '
  /^## / { inside = ($0 == heading || index($0, heading " ") == 1); if (inside) found = 1; next }
  inside { print }
  END { exit !found }
' CHANGELOG.md
