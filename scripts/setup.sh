#!/usr/bin/env bash
# Set pi_dynn up in .venv next to this script's folder: ./scripts/setup.sh [--dev] [--lite] [--with EXTRA,...]
#   --dev    also what the tests and the linter need
#   --lite   without torch, a seventh of the size: runs bundles for LiteRT (ONNX: --with onnx), cannot train or export
#   --with   also these extras of setup.cfg, such as serve,watch,mqtt
# It can be run again at any time. PYTHON chooses the interpreter, e.g. PYTHON=python3.12 ./scripts/setup.sh
set -euo pipefail
cd "$(dirname "$0")/.."

extras=() lite=
while [ $# -gt 0 ]; do
  case "$1" in
    --dev) extras+=(dev) ;;
    --lite) lite=yes ;;
    --with)
      [ -n "${2:-}" ] || { echo "setup.sh: --with needs names of extras, such as serve,watch" >&2; exit 2; }
      IFS=, read -ra more <<< "$2"; extras+=("${more[@]}"); shift ;;
    -h | --help) sed -n '2,6s/^# //p' "$0"; exit 0 ;;
    *) echo "setup.sh: unknown option '$1'; there are --dev, --lite and --with EXTRA,..." >&2; exit 2 ;;
  esac
  shift
done

python=${PYTHON:-python3}
newest=13 # TorchScript ends with it; the other forms go on
[ -n "$lite" ] && newest=99
command -v "$python" > /dev/null || { echo "setup.sh: no $python; install Python 3.10 to 3.13, or set PYTHON" >&2; exit 1; }
"$python" -c "import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, $newest))" || {
  echo "setup.sh: $("$python" --version) does not suit; set PYTHON to a Python from 3.10 to 3.13, or use --lite from 3.14 on" >&2
  exit 1; }
echo "setup.sh: 1 of 3, the environment .venv with $("$python" --version)"
[ -x .venv/bin/python ] || "$python" -m venv .venv || {
  echo "setup.sh: cannot make .venv; on Debian and Raspberry Pi OS: sudo apt install python3-venv" >&2; exit 1; }

# A board with an I2C bus can carry the power monitor: its drivers come along. The pi-ina219 one needs a C
# compiler, so a board without gets the register driver alone.
if compgen -G '/dev/i2c-*' > /dev/null; then
  if command -v cc > /dev/null; then extras+=(pi); else extras+=(i2c); fi
fi

list=$(IFS=,; echo "${extras[*]:-}")
quiet=--quiet
[ -t 1 ] && quiet=--progress-bar=on # its bars tell a person that it goes on
install() { .venv/bin/python -m pip install $quiet --disable-pip-version-check "$@"; }
if [ -n "$lite" ]; then
  echo "setup.sh: 2 of 3, what pi_dynn${list:+ with $list} needs without torch"
  .venv/bin/python scripts/lite_requirements.py "${extras[@]}" > .venv/lite.txt
  .venv/bin/python -m pip uninstall --yes --quiet pi_dynn 2> /dev/null # or pip complains about its missing torch
  # Python compiles the modules that are used, when they are: a fifth of the size.
  install --no-compile --requirement .venv/lite.txt
  echo "setup.sh: 3 of 3, pi_dynn"
  install --no-deps --editable .
  if .venv/bin/python -c 'import importlib.util as u, sys; sys.exit(u.find_spec("torch") is None)'; then
    echo "setup.sh: torch is in .venv from before and stays; for an installation without it remove .venv first"
  fi
else
  echo "setup.sh: 2 of 3, pi_dynn${list:+ with $list} and torch, some hundreds of megabytes"
  install --editable ".${list:+[$list]}"
  echo "setup.sh: 3 of 3, a torchvision that fits this torch"
  scripts/fit_torchvision.sh .venv/bin/python
fi
.venv/bin/pi-dynn --version
cat << 'END'
Ready. What to try:
  . .venv/bin/activate
  pi-dynn classify                      the photographs that come along
  pi-dynn doctor                        what this machine offers, and what is missing
END
[ -n "$lite" ] || echo "  pip install -e '.[train]' && pi-dynn learn photos    a model of your own, from a folder per class"
