#!/usr/bin/env bash
# Runs tests with another version of transformers: versions.sh <bin of the environment> <version> <tests and options>
set -euo pipefail
bin=$1 version=$2
shift 2
folder=.versions/$version
if [ ! -x "$folder/bin/python" ]; then
  "$bin/python" -m venv --without-pip "$folder"
  "$bin/python" - "$folder" <<'PYTHON'
import sys, sysconfig
from pathlib import Path

(inside,) = Path(sys.argv[1]).glob("lib/python*/site-packages")
(inside / "lent.pth").write_text(f"{Path.cwd()}\n{sysconfig.get_path('purelib')}\n")
PYTHON
fi
"$bin/python" -m pip --python "$folder/bin/python" install --quiet "transformers==$version"
echo "transformers $version"
"$folder/bin/python" -m pytest -n "${WORKERS:-2}" -p no:cacheprovider "$@"
