#!/usr/bin/env bash
# Runs pi_dynn on an emulated Cortex-A72 (Raspberry Pi 4) or Cortex-A76 (Raspberry Pi 5), without root.
set -euo pipefail
repository=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

usage() {
    cat <<'END'
Usage: scripts/arm_emulation.sh COMMAND

  setup                     make the emulated board ready; what is there already is kept
  run [OPTIONS] -- COMMAND  run `pi-dynn ...`, `python ...` or `pytest ...` on it
  peers                     setup, and ONNX Runtime and ExecuTorch beside it as the site `peers`
  litert                    setup, and LiteRT as the site `litert`
  ncnn                      setup, and ncnn as the site `ncnn`, for benchmarks/arm/public_timings.py
  test [PYTEST ARGUMENTS]   the tests of runtime, deploy, power and cli on both cores
  canary                    which releases of torch, ONNX Runtime and LiteRT answer on both cores, as a table (40 minutes, 4 GB)
  ci                        import, engines, parity, classify, energy, refusals and instruction budgets

Options of run:
  --cpu NAME    cortex-a72 (default) or cortex-a76
  --pages N     page size in bytes; 16384 is what a Raspberry Pi 5 uses
  --site DIR    aarch64 packages in front of the others (see setup_site)
  --only DIR    these aarch64 packages and no others; `lite` has no torch
  --count FILE  count instructions by class, into FILE (benchmarks/arm/count.c)
  --caches      with --count: also the misses of the core's data caches, which takes two to three times as long

Environment:
  PI_DYNN_ARM  where the board lives (default: build/arm below the repository, 2 GB)
  PYTHON       a Python with pip, for the aarch64 wheels (default: .venv/bin/python, else python3)
  DEBIAN_MIRROR  where Debian's packages are (default: what apt uses here, on Debian)

It takes Debian's QEMU, Python and libraries as packages and unpacks them below that folder; nothing is installed.
Emulated time means nothing; instruction counts repeat.
END
}

home=${PI_DYNN_ARM:-$repository/build/arm}
suite=bookworm # the last Debian whose qemu-user takes plugins
mirror=${DEBIAN_MIRROR:-$(apt-get indextargets --format '$(LABEL) $(REPO_URI)' 2>/dev/null | sed -n '/^Debian http/{s/^Debian //p;q}')}
keyring=/usr/share/keyrings/debian-archive-keyring.gpg
if [ -z "${PYTHON:-}" ]; then
    PYTHON=python3
    if [ -x "$repository/.venv/bin/python" ]; then PYTHON=$repository/.venv/bin/python; fi
fi

fail() {
    echo "arm_emulation: error: $1" >&2
    exit "${2:-1}"
}

say() { echo "arm_emulation: $1" >&2; }

# --- setting up ---------------------------------------------------------------------------------------------

# Whether the board can be made here; says why not.
check_host() {
    [ "$(uname -sm)" = "Linux x86_64" ] || fail "needs Linux on x86-64, this is $(uname -sm)" 3
    [ -n "$mirror" ] || fail "needs Debian's packages: set DEBIAN_MIRROR to the address of a mirror" 3
    local tool
    for tool in apt-get dpkg-deb cc; do
        command -v "$tool" >/dev/null || fail "needs $tool: use a Debian or Ubuntu with a C compiler" 3
    done
    [ -r "$keyring" ] || fail "needs $keyring: apt install debian-archive-keyring" 3
    "$PYTHON" -m pip --version >/dev/null 2>&1 || fail "$PYTHON has no pip: set PYTHON to one that has" 3
}

# apt for one architecture, with a state of its own below $home/apt.
apt_for() { # ARCHITECTURE ARGUMENTS...
    local state=$home/apt/$1
    mkdir -p "$state"/{lists/partial,archives/partial,etc/apt.conf.d,etc/preferences.d}
    touch "$state/status"
    cat >"$state/etc/sources.list" <<END
deb [signed-by=$keyring] $mirror $suite main
deb-src [signed-by=$keyring] $mirror $suite main
END
    cat >"$state/apt.conf" <<END
APT::Architecture "$1";
APT::Architectures { "$1"; };
APT::Install-Recommends "false";
APT::Sandbox::User "";
Acquire::Languages "none";
Acquire::Retries "3";
Dir::State "$state";
Dir::State::status "$state/status";
Dir::Cache "$state";
Dir::Etc "$state/etc";
Dir::Etc::trustedparts "/etc/apt/trusted.gpg.d";
END
    APT_CONFIG=$state/apt.conf apt-get -qq "${@:2}"
}

unpack_packages() { # ARCHITECTURE INTO PACKAGES...
    local package
    apt_for "$1" update
    apt_for "$1" install --yes --download-only "${@:3}"
    mkdir -p "$2"
    for package in "$home/apt/$1"/archives/*.deb; do
        dpkg-deb --extract "$package" "$2"
    done
}

setup_qemu() {
    [ -x "$home/qemu/usr/bin/qemu-aarch64" ] && return
    say "unpacking Debian's qemu-user"
    unpack_packages amd64 "$home/qemu.new" qemu-user
    rm -rf "$home/qemu"
    mv "$home/qemu.new" "$home/qemu"
}

setup_plugin() {
    local source=$repository/benchmarks/arm/count.c header=$home/plugin/qemu-plugin.h
    [ "$home/plugin/count.so" -nt "$source" ] && return
    say "compiling the instruction counter"
    mkdir -p "$home/plugin"
    if [ ! -s "$header" ]; then
        (cd "$home/plugin" && apt_for amd64 source --download-only qemu)
        tar -xJOf "$home"/plugin/qemu_*.orig.tar.xz --wildcards '*/include/qemu/qemu-plugin.h' >"$header"
        rm "$home"/plugin/qemu_*
    fi
    cc -O2 -Wall -Wextra -Wno-unused-parameter -shared -fPIC -I "$home/plugin" "$source" -o "$home/plugin/count.so"
}

# One root per core: the C library and Python are shared by hard links, what the kernel would tell differs.
setup_roots() {
    [ -d "$home/cortex-a76" ] && return
    say "unpacking an arm64 Python"
    unpack_packages arm64 "$home/root.new" python3.11 libgomp1 libstdc++6
    describe_core "$home/root.new" # so that both roots have the files as their own
    rm -rf "$home"/{root,cortex-a72,cortex-a76}
    cp -al "$home/root.new" "$home/cortex-a72"
    describe_core "$home/cortex-a72" 0x410fd083 0xd08 3 "fp asimd evtstrm crc32 cpuid"
    mv "$home/root.new" "$home/cortex-a76"
    describe_core "$home/cortex-a76" 0x414fd0b1 0xd0b 1 \
        "fp asimd evtstrm aes pmull sha1 sha2 crc32 atomics fphp asimdhp cpuid asimdrdm lrcpc dcpop asimddp"
}

# The files in which Linux describes four cores of a kind. QEMU would show those of the host, on which the cpuinfo
# library of torch and ONNX Runtime fails.
describe_core() { # ROOT MIDR PART REVISION FEATURES
    local root=$1 core
    rm -rf "$root/proc" "$root/sys"
    [ $# -gt 1 ] || return 0
    mkdir -p "$root/proc" "$root/sys/devices/system/cpu"
    for core in 0 1 2 3; do
        cat <<END
processor	: $core
BogoMIPS	: 108.00
Features	: $5
CPU implementer	: 0x41
CPU architecture: 8
CPU variant	: 0x${2:4:1}
CPU part	: $3
CPU revision	: $4

END
        local identification=$root/sys/devices/system/cpu/cpu$core/regs/identification
        mkdir -p "$identification"
        printf '0x00000000%s\n' "${2#0x}" >"$identification/midr_el1"
    done >"$root/proc/cpuinfo"
    local list
    for list in possible present online; do
        echo 0-3 >"$root/sys/devices/system/cpu/$list"
    done
}

# aarch64 wheels into a folder of their own.
setup_site() { # NAME PIP_ARGUMENTS...
    local site=$home/$1 wanted
    # Without the place of this checkout: another one may share the boards.
    wanted=$(printf '%s\n' "${@:2}" | sed "s|^$repository/||"; cat "$repository/benchmarks/arm/requirements.txt")
    [ "$(cat "$site/.wanted" 2>/dev/null)" = "$wanted" ] && return
    say "fetching aarch64 wheels: ${*:2}"
    rm -rf "$site" "$site.new"
    "$PYTHON" -m pip install --quiet --disable-pip-version-check --only-binary=:all: --target "$site.new" \
        --implementation cp --python-version 3.11 --platform manylinux_2_28_aarch64 --platform manylinux_2_27_aarch64 \
        --platform manylinux_2_17_aarch64 --platform manylinux2014_aarch64 "${@:2}"
    printf '%s' "$wanted" >"$site.new/.wanted"
    mv "$site.new" "$site"
}

# sys.executable of the emulated Python: what it starts has to go through QEMU again.
setup_python() {
    mkdir -p "$home/bin"
    cat >"$home/bin/python3.11" <<'END'
#!/bin/sh
# Written by scripts/arm_emulation.sh.
exec $PI_DYNN_ARM_QEMU "$PYTHONHOME/bin/python3.11" "$@"
END
    chmod +x "$home/bin/python3.11"
}

setup() {
    check_host
    mkdir -p "$home"
    setup_qemu
    setup_plugin
    setup_roots
    setup_python
    setup_site site --no-deps --requirement "$repository/benchmarks/arm/requirements.txt"
}

setup_peers() {
    setup
    setup_site peers --no-deps onnxruntime==1.31.1 executorch==1.0.1 # the last ExecuTorch for the board's torch
}

setup_litert() {
    setup
    setup_site litert --no-deps ai-edge-litert==2.3.0
}

setup_ncnn() {
    setup
    setup_site ncnn --no-deps ncnn==1.0.20240102 # about as old as the published timings
}

# What `setup.sh --lite` installs on a board.
setup_lite() {
    setup_site lite $("$PYTHON" "$repository/scripts/lite_requirements.py" | tr -d ' ')
}

# --- running ------------------------------------------------------------------------------------------------

run() {
    local cpu=cortex-a72 pages=() counts='' caches='' plugin=() sites=$home/site
    while [ $# -gt 0 ] && [ "$1" != -- ]; do
        if [ "$1" = --caches ]; then
            caches=yes
            shift
            continue
        fi
        [ $# -ge 2 ] || fail "$1 needs a value: see --help" 2
        case $1 in
            --cpu) cpu=$2 ;;
            --pages) pages=(-p "$2") ;;
            --site) sites=$home/$2:$sites ;;
            --only) sites=$home/$2 ;;
            --count) counts=$(realpath "$2") ;;
            *) fail "unknown option '$1': see --help" 2 ;;
        esac
        shift 2
    done
    [ $# -ge 2 ] || fail "run needs -- and a command: see --help" 2
    # The data caches of a Raspberry Pi 4 (BCM2711) and 5 (BCM2712), as one core sees them.
    case $cpu in
        cortex-a72) caches=${caches:+,caches=32:2/1024:16} ;;
        cortex-a76) caches=${caches:+,caches=64:4/512:8/2048:16} ;;
        *) fail "--cpu $cpu: choose cortex-a72 or cortex-a76" 2 ;;
    esac
    [ -z "$counts" ] || plugin=(-plugin "$home/plugin/count.so,out=$counts$caches")
    [ -d "$home/$cpu" ] || fail "there is no board in $home: scripts/arm_emulation.sh setup" 3
    local command=()
    case $2 in
        python) command=("${@:3}") ;;
        pytest) command=(-m pytest "${@:3}") ;;
        pi-dynn) command=(-m pi_dynn.cli "${@:3}") ;;
        *) fail "'$2' is not there: run pi-dynn, python or pytest" 2 ;;
    esac
    local libraries=$home/qemu/lib/x86_64-linux-gnu:$home/qemu/usr/lib/x86_64-linux-gnu
    # QEMU runs with the C library it was built for, whatever this machine has.
    PI_DYNN_ARM_QEMU="$home/qemu/lib64/ld-linux-x86-64.so.2 --library-path $libraries
        $home/qemu/usr/bin/qemu-aarch64 -L $home/$cpu -cpu $cpu -0 $home/bin/python3.11 ${pages[*]}
        -E PYTHONHOME=$home/$cpu/usr -E PYTHONPATH=$repository:$sites -E PYTHONDONTWRITEBYTECODE=1"
    export PI_DYNN_ARM_QEMU OMP_NUM_THREADS=${OMP_NUM_THREADS:-1} XDG_CACHE_HOME=$home/cache/$cpu
    # shellcheck disable=SC2086 # words on purpose: paths with blanks are refused below
    case $home in *[[:space:]]*) fail "$home: the path must not hold blanks" 2 ;; esac
    $PI_DYNN_ARM_QEMU "${plugin[@]}" "$home/$cpu/usr/bin/python3.11" "${command[@]}"
}

# --- checking -----------------------------------------------------------------------------------------------

# The tests of the parts that a Pi runs, on both cores; the Cortex-A76 with the pages of a Raspberry Pi 5.
tests() {
    setup
    local rooms=(tests/runtime tests/deploy tests/power tests/cli tests/test_board.py tests/test_torch_build.py)
    local options=(-q -p no:cacheprovider -o "addopts=--import-mode=importlib -m 'not hardware'")
    (cd "$repository" && run --cpu cortex-a72 -- pytest "${options[@]}" "${rooms[@]}" "$@")
    (cd "$repository" && run --cpu cortex-a76 --pages 16384 -- pytest "${options[@]}" "${rooms[@]}" "$@")
}

# torch 2.10.0 must be refused by one line on a Cortex-A72, on which it kills Python.
check_refusal() {
    setup_site torch-2.10 --no-deps torch==2.10.0
    local message
    message=$(run --cpu cortex-a72 --site torch-2.10 -- pi-dynn classify 2>&1 >/dev/null) && fail "torch 2.10 was not refused"
    [ "$(wc -l <<<"$message")" = 1 ] && [[ $message == *"torch 2.10.0"*"illegal instruction"* ]] ||
        fail "torch 2.10 on a Cortex-A72 gave: $message"
    say "refused, as it should: $message"
}

check_commands() {
    setup_lite
    local check checks=()
    check_core cortex-a72 4096 & checks+=($!)
    check_core cortex-a76 16384 & checks+=($!)
    for check in "${checks[@]}"; do wait "$check" || fail "a command failed on an emulated board"; done
}

# Commands on the core $1 with pages of $2 bytes.
check_core() {
    local image
    image=$(find "$repository/pi_dynn/assets/samples" -name '*.jpg' | sort | head -n 1)
    run --cpu "$1" --pages "$2" -- pi-dynn classify --threads 1 "$image"
    run --cpu "$1" --pages "$2" -- pi-dynn energy --meter fake --threads 1 --trials 2 --n 4 --idle-s 1 --json >/dev/null
    say "classify and energy work on $1 with pages of $2 bytes"
    run --cpu "$1" --pages "$2" --only lite -- pi-dynn classify "$image"
    say "classify works on $1 without torch"
}

# One answer of a model that comes along with each release; what dies takes its process along.
canary() {
    setup
    setup_lite
    local image release name last row cpu
    image=$(find "$repository/pi_dynn/assets/samples" -name '*.jpg' | sort | head -n 1)
    echo '| release | Cortex-A72 | Cortex-A76 |'
    echo '| --- | --- | --- |'
    for release in torch==2.{6.0,7.1,8.0,9.1,10.0} onnxruntime==1.{20.1,22.1,24.4,26.0,28.0,30.0,32.0} \
        ai-edge-litert=={1.0.1,1.1.2,1.2.0,1.3.0,1.4.0,2.0.3,2.1.6,2.2.0,2.3.0}; do
        name=canary-${release/==/-} row="| ${release/==/ } |"
        if ! last=$( (setup_site "$name" --no-deps "$release") 2>&1); then
            echo "$row not on the index |  |"
            continue
        fi
        for cpu in cortex-a72 cortex-a76; do
            local sites=(--only "$name:$home/lite") bundle=()
            case $release in
                torch*) sites=(--site "$name") ;;
                onnx*) bundle=(--engine onnxruntime) ;;
                ai-edge*) bundle=(--bundle lite0 --engine litert) ;;
            esac
            if last=$(run --cpu "$cpu" "${sites[@]}" -- pi-dynn classify --threads 1 --json "${bundle[@]}" "$image" 2>&1); then
                row+=" answers |"
            else
                row+=" status $?: $(tail -n 1 <<<"$last" | cut -c 1-90) |"
            fi
        done
        echo "$row"
        rm -rf "${home:?}/$name"
    done
}

ci() {
    local reason
    if ! reason=$( (setup) 2>&1); then
        echo "arm_emulation: SKIPPED, the emulated boards cannot be made here: $(tail -n 1 <<<"$reason")"
        return
    fi
    check_refusal
    check_commands
    "$PYTHON" "$repository/benchmarks/arm/instructions.py" --check
    say "all passed"
}

case ${1:-} in
    setup) setup ;;
    peers) setup_peers ;;
    litert) setup_litert ;;
    ncnn) setup_ncnn ;;
    run) run "${@:2}" ;;
    test) tests "${@:2}" ;;
    canary) canary ;;
    ci) ci ;;
    -h | --help) usage ;;
    *) usage >&2; exit 2 ;;
esac
