#!/usr/bin/env bash
# Makes a Raspberry Pi ready to measure: I2C at 400 kHz, the groups of the user, a steady processor clock.
# Says what it changes, changes nothing that is already so, and may be run again at any time.
set -euo pipefail

usage() {
    cat <<'END'
Usage: sudo scripts/setup_pi.sh [--dry-run] [--user NAME] [--governor NAME] [--root DIR]

  --dry-run        say what would change, and change nothing
  --user NAME      who may use the meter (default: who called sudo)
  --governor NAME  processor frequency governor (default: performance; "ondemand" gives it back)
  --root DIR       work on the tree below DIR instead of / (a mounted card, a test)
END
}

fail() {
    echo "setup_pi: error: $1" >&2
    exit "${2:-1}"
}

root=/
user=${SUDO_USER:-${USER:-}}
governor=performance
dry_run=false
while [ $# -gt 0 ]; do
    case $1 in
        --dry-run) dry_run=true ;;
        --user | --governor | --root)
            [ $# -ge 2 ] || fail "$1 needs a value: see --help" 2
            case $1 in
                --user) user=$2 ;;
                --governor) governor=$2 ;;
                --root) root=$2 ;;
            esac
            shift
            ;;
        -h | --help)
            usage
            exit 0
            ;;
        *) fail "unknown option '$1': see --help" 2 ;;
    esac
    shift
done
root=${root%/}

changes=0
already() { echo "already: $1"; }
changed() { # what is being changed; true if it is to be done
    changes=$((changes + 1))
    if $dry_run; then
        echo "would change: $1"
        return 1
    fi
    echo "change: $1"
}

# Replace a file by standard input, whole or not at all.
replace_file() {
    mkdir -p "$(dirname "$1")"
    local new
    new=$(mktemp "$(dirname "$1")/.pi_dynn.XXXXXX")
    cat >"$new"
    chmod 644 "$new" 2>/dev/null || true # the boot partition is FAT, which has no such modes
    mv "$new" "$1"
}

check_board() {
    local model=$root/proc/device-tree/model
    if [ ! -r "$model" ] || ! grep -aq "Raspberry Pi" "$model"; then
        fail "this is no Raspberry Pi (no such name in ${model}): nothing was changed"
    fi
    [ -n "$user" ] || fail "whose meter is it? give --user NAME" 2
    if [ -z "$root" ] && ! $dry_run && [ "$(id -u)" -ne 0 ]; then
        fail "only root may change this: call it with sudo, or try --dry-run"
    fi
}

setup_i2c() {
    local line=dtparam=i2c_arm=on,i2c_arm_baudrate=400000 config=$root/boot/firmware/config.txt
    [ -f "$config" ] || config=$root/boot/config.txt
    [ -f "$config" ] || fail "no config.txt under $root/boot/firmware or $root/boot: is the boot partition mounted?"
    # The last line of its kind wins, so it must come after any other that sets the bus.
    if [ "$(grep -E '^[[:space:]]*dtparam=.*i2c(_arm)?(_baudrate)?=' "$config" | tail -n 1)" = "$line" ]; then
        already "$line in $config"
    elif changed "$line in $config (the old file is kept as config.txt.before-pi_dynn)"; then
        [ -e "$config.before-pi_dynn" ] || cp "$config" "$config.before-pi_dynn"
        { cat "$config" && printf '\n[all]\n# pi_dynn: the power meter, fast enough for 209 samples a second\n%s\n' "$line"; } |
            replace_file "$config"
        reboot_needed=true
    fi
    local modules=$root/etc/modules-load.d/pi_dynn.conf
    if [ "$(cat "$modules" 2>/dev/null || true)" = i2c-dev ]; then
        already "i2c-dev loaded at boot"
    elif changed "i2c-dev loaded at boot ($modules)"; then
        echo i2c-dev | replace_file "$modules"
        reboot_needed=true
    fi
}

setup_groups() {
    local group members
    for group in i2c video; do # the bus; the firmware's throttle bits
        members=$(sed -n "s/^$group:[^:]*:[^:]*://p" "$root/etc/group" 2>/dev/null || true)
        case ,$members, in
            *,"$user",*) already "$user in group $group" ;;
            *)
                if ! grep -q "^$group:" "$root/etc/group" 2>/dev/null; then
                    echo "skipped: there is no group $group here"
                elif changed "$user in group $group (log in again afterwards)"; then
                    usermod -aG "$group" "$user"
                fi
                ;;
        esac
    done
}

setup_governor() {
    local policy now
    for policy in "$root"/sys/devices/system/cpu/cpufreq/policy*; do
        [ -f "$policy/scaling_governor" ] || continue
        now=$(cat "$policy/scaling_governor")
        if [ "$now" = "$governor" ]; then
            already "governor $governor (${policy##*/})"
        elif changed "governor $now to $governor (${policy##*/})"; then
            echo "$governor" >"$policy/scaling_governor"
        fi
    done
    local rule="w /sys/devices/system/cpu/cpufreq/policy*/scaling_governor - - - - $governor"
    local rules=$root/etc/tmpfiles.d/pi_dynn.conf
    if [ "$(cat "$rules" 2>/dev/null || true)" = "$rule" ]; then
        already "governor $governor at boot"
    elif changed "governor $governor at boot ($rules)"; then
        echo "$rule" | replace_file "$rules"
    fi
}

reboot_needed=false
check_board
setup_i2c
setup_groups
setup_governor
if $dry_run; then
    echo "$changes changes to be made; nothing was touched"
elif [ "$changes" -eq 0 ]; then
    echo "nothing to change"
else
    echo "$changes changes made"
fi
if $reboot_needed; then
    echo "reboot, then wire the meter as docs/wiring.md shows, and ask: pi-dynn doctor"
fi
