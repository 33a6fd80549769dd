#!/bin/sh
# test_systemd.sh [DAMSOD] - what lies in systemd/ is what systemd accepts and damsod understands.
#
# Method: systemd's own tools read copies of the files in a directory of their own; nothing is
#         installed, and no running systemd is needed. DAMSOD is the binary whose defaults the
#         sample configuration must show; without it that part is skipped.
set -u
tree=$(cd "$(dirname "$0")/../.." && pwd)
damsod=${1:-}
case $damsod in ''|/*) ;; *) damsod=$PWD/$damsod ;; esac
here=$(mktemp -d) || exit 1
trap 'rm -rf "$here"' EXIT
passed=0 failed=0 skipped=0

pass() { passed=$((passed + 1)); echo "ok      $1"; }
fail() { failed=$((failed + 1)); echo "FAILED  $1"; }
skip() { skipped=$((skipped + 1)); echo "skipped $1: $2"; }
have() { command -v "$1" >/dev/null 2>&1; }

# The unit names a binary that need not be here: a copy names one that is.
unit=$here/damsod.service
sed 's,/usr/bin/damsod,/bin/true,' "$tree/systemd/damsod.service" >"$unit"

unit_is_verified_without_a_word() {
    if ! have systemd-analyze; then
        skip "$1" 'no systemd-analyze'
    elif systemd-analyze verify --man=no "$unit" >"$here/said" 2>&1 && [ ! -s "$here/said" ]; then
        pass "$1"
    else
        cat "$here/said"
        fail "$1"
    fi
}

# 2.0 of 10; what is left is network access, which a server needs.
unit_is_exposed_little() {
    if ! have systemd-analyze; then
        skip "$1" 'no systemd-analyze'
    elif systemd-analyze security --offline=yes --threshold=20 --no-pager "$unit" \
        >"$here/said" 2>&1; then
        tail -n 1 "$here/said"
        pass "$1"
    else
        cat "$here/said"
        fail "$1"
    fi
}

# Its last SystemCallFilter lines take away more than the first gave only where that is meant.
io_uring_passes_the_filter() {
    if ! have systemd-analyze; then
        skip "$1" 'no systemd-analyze'
        return
    fi
    denied=$(sed -n 's/^SystemCallFilter=~//p' "$tree/systemd/damsod.service")
    for group in $denied; do
        if systemd-analyze syscall-filter "$group" | grep -q '^ *\(io_uring_\|@aio\)'; then
            fail "$1"
            return
        fi
    done
    if systemd-analyze syscall-filter @system-service | grep -q '^ *@aio' &&
        systemd-analyze syscall-filter @aio | grep -q '^ *io_uring_enter'; then
        pass "$1"
    else
        fail "$1"
    fi
}

user_and_directories_are_made() {
    if [ "$(id -u)" != 0 ] || ! have systemd-sysusers || ! have systemd-tmpfiles; then
        skip "$1" 'needs root, systemd-sysusers and systemd-tmpfiles'
        return
    fi
    mkdir -p "$here/root/etc" "$here/root/usr/lib/sysusers.d" "$here/root/usr/lib/tmpfiles.d"
    cp "$tree/systemd/damsod.sysusers" "$here/root/usr/lib/sysusers.d/damsod.conf"
    cp "$tree/systemd/damsod.tmpfiles" "$here/root/usr/lib/tmpfiles.d/damsod.conf"
    if systemd-sysusers --root="$here/root" damsod.conf >"$here/said" 2>&1 &&
        systemd-tmpfiles --root="$here/root" --create damsod.conf >>"$here/said" 2>&1 &&
        uid=$(sed -n 's/^damso:x:\([0-9]*\):.*/\1/p' "$here/root/etc/passwd") &&
        [ "$(stat -c '%a %u' "$here/root/var/lib/damso")" = "700 $uid" ] &&
        [ "$(stat -c '%a %u' "$here/root/etc/damso")" = '755 0' ]; then
        pass "$1"
    else
        cat "$here/said"
        fail "$1"
    fi
}

# A key that the kernel does not have is a typing mistake, unless a minus says that it may be so.
sysctl_keys_exist() {
    unknown=$(sed -n 's/^\([a-z][a-z0-9_.]*\) *=.*/\1/p' "$tree/systemd/90-damso-sysctl.conf" |
        tr . / | while read -r key; do [ -e "/proc/sys/$key" ] || echo "$key"; done)
    if [ -z "$unknown" ]; then
        pass "$1"
    else
        echo "$unknown"
        fail "$1"
    fi
}

sample_configuration_shows_the_defaults() {
    if [ -z "$damsod" ]; then
        skip "$1" 'no damsod named'
        return
    fi
    sed -n '/^\[/,$p' "$tree/systemd/damsod.conf" >"$here/sample"
    if "$damsod" --print-default-config >"$here/defaults" &&
        diff -u "$here/defaults" "$here/sample" &&
        ! sed '/^\[/,$d' "$tree/systemd/damsod.conf" | grep -q '^[^#]' &&
        "$damsod" --config "$tree/systemd/damsod.conf" --check-config >/dev/null; then
        pass "$1"
    else
        fail "$1"
    fi
}

for part in unit_is_verified_without_a_word unit_is_exposed_little io_uring_passes_the_filter \
    user_and_directories_are_made sysctl_keys_exist sample_configuration_shows_the_defaults; do
    $part $part
done
echo "$passed passed, $failed failed, $skipped skipped"
[ "$failed" = 0 ]
