#!/usr/bin/env bash
# Pictures of pages for docs/images, 1280 points wide, in 64 colours, so that each stays small.
#
#   scripts/pictures.sh DIRECTORY NAME HEIGHT URL [NAME HEIGHT URL]...
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
# shellcheck source=tools.sh
. "$root/scripts/tools.sh"
need_chromium || fail "no Chromium: install it"
python="$tools_dir/pillow/bin/python"
"$python" -c "import PIL" 2>/dev/null || pip_install "$tools_dir/pillow" pillow || fail "no Pillow (log: $tools_dir/pip.log)"
directory=$1
shift
profile=$(mktemp -d "${TMPDIR:-/tmp}/kiln-pictures.XXXXXX")
trap 'rm -rf "$profile"' EXIT
while [ $# -ge 3 ]; do
  "$KILN_CHROMIUM" --headless --no-sandbox --disable-gpu --disable-quic --no-first-run --hide-scrollbars \
    --disable-background-networking --disable-component-update --disable-sync "--user-data-dir=$profile" \
    "--window-size=1280,$2" "--screenshot=$profile/page.png" "$3" >"$profile/log" 2>&1 || { cat "$profile/log" >&2; exit 1; }
  "$python" -c 'import sys
from PIL import Image
page = Image.open(sys.argv[1]).convert("RGB")
page.quantize(64, dither=Image.Dither.NONE).save(sys.argv[2], optimize=True)' "$profile/page.png" "$directory/$1.png"
  ls -l "$directory/$1.png"
  shift 3
done
