#!/usr/bin/env bash
# See that torchvision loads beside torch, and replace it where it does not: scripts/fit_torchvision.sh [PYTHON]
# The package index has torchvision built for CUDA, which a CPU build of torch cannot load; PyTorch's own index has one
# for every build of torch. It says what it did, and ends well where there is none to be had: pi_dynn works without.
set -euo pipefail
python=${1:-.venv/bin/python}

versions() { "$python" -c 'from importlib.metadata import version; print(version("torch"), version("torchvision"))'; }
problem() { "$python" -c 'import torchvision' 2>&1 > /dev/null | tail -n 1; }
loads() { "$python" -c 'import torchvision' > /dev/null 2>&1; }

read -r torch vision <<< "$(versions)"
if loads; then
  echo "torchvision $vision loads beside torch $torch"
  exit
fi
why=$(problem || true)
case "$torch" in
  *+*) index=https://download.pytorch.org/whl/${torch#*+} ;;
  *) index=https://download.pytorch.org/whl/cpu ;;
esac
minor=${torch#*.} # torchvision 0.(n + 15) is made for torch 2.n
wanted="torchvision==0.$((${minor%%.*} + 15)).*"
pip=("$python" -m pip install --quiet --disable-pip-version-check --no-deps --force-reinstall --index-url "$index" "$wanted")
echo "torchvision $vision does not load beside torch $torch ($why): looking at $index"
if "${pip[@]}" --retries 0 --timeout 10 2> /dev/null && loads; then
  read -r torch vision <<< "$(versions)"
  echo "replaced: torchvision $vision loads beside torch $torch"
  exit
fi
echo "none that fits can be had here. pi_dynn works with it as it is: transforms and networks load, operators such as"
echo "torchvision.ops.nms do not. Later, with that index in reach: ${pip[*]}"
