#!/usr/bin/env bash
# Set pi_dynn up in .venv next to this script's folder: ./scripts/setup.sh [--dev]
#   --dev   also what the tests and the linter need
# It can be run again at any time. PYTHON chooses the interpreter, e.g. PYTHON=python3.12 ./scripts/setup.sh
set -euo pipefail
cd "$(dirname "$0")/.."

extras=()
for argument in "$@"; do
  case "$argument" in
    --dev) extras+=(dev) ;;
    -h | --help) sed -n '2,4s/^# //p' "$0"; exit 0 ;;
    *) echo "setup.sh: unknown option '$argument'; the only one is --dev" >&2; exit 2 ;;
  esac
done

python=${PYTHON:-python3}
command -v "$python" > /dev/null || { echo "setup.sh: no $python; install Python 3.10 to 3.13, or set PYTHON" >&2; exit 1; }
"$python" -c 'import sys; sys.exit(not (3, 10) <= sys.version_info < (3, 14))' || {
  echo "setup.sh: $("$python" --version) does not suit; set PYTHON to a Python from 3.10 to 3.13" >&2; exit 1; }
echo "setup.sh: 1 of 3, the environment .venv with $("$python" --version)"
[ -x .venv/bin/python ] || "$python" -m venv .venv || {
  echo "setup.sh: cannot make .venv; on Debian and Raspberry Pi OS: sudo apt install python3-venv" >&2; exit 1; }

# A board with an I2C bus can carry the power monitor: its drivers come along. The pi-ina219 one needs a C
# compiler, so a board without gets the register driver alone.
if compgen -G '/dev/i2c-*' > /dev/null; then
  if command -v cc > /dev/null; then extras+=(pi); else extras+=(i2c); fi
fi

list=$(IFS=,; echo "${extras[*]:-}")
echo "setup.sh: 2 of 3, pi_dynn${list:+ with $list} and torch, some hundreds of megabytes"
quiet=--quiet
[ -t 1 ] && quiet=--progress-bar=on # its bars tell a person that it goes on
.venv/bin/python -m pip install $quiet --disable-pip-version-check --editable ".${list:+[$list]}"
echo "setup.sh: 3 of 3, a torchvision that fits this torch"
scripts/fit_torchvision.sh .venv/bin/python
.venv/bin/pi-dynn --version
cat << 'END'
Ready. What to try:
  . .venv/bin/activate
  pi-dynn classify                      the photographs that come along
  pi-dynn doctor                        what this machine offers, and what is missing
  pip install -e '.[train]' && pi-dynn learn photos    a model of your own, from a folder per class
END
