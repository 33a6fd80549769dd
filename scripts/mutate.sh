#!/bin/sh
# Breaks core/spsc.c and core/doorbell.h in one place at a time, and expects tests/core/test_spsc.c,
# built with ThreadSanitizer, to notice. A test that cannot fail proves nothing.
#
# The doorbell's mutations run without the sanitizer: it slows a store down so much that the order
# in which the machine makes it visible no longer shows. Not among them: weaker memory orders in
# doorbell.h, since on x86 every exchange is a full barrier, whatever order it is given.
set -eu
cd "$(dirname "$0")/.."
out=$(mktemp -d)
trap 'rm -rf "$out"' EXIT
mkdir "$out/core"
passed=0 failed=0

build() { # what is under $out/core goes before what is in the tree
    ${CC:-gcc} -std=gnu17 $flags -pthread -iquote "$out" -iquote . \
        "$out/core/spsc.c" tests/core/test_spsc.c -o "$out/test"
}

run() {
    TSAN_OPTIONS=halt_on_error=1 timeout 120 "$out/test" >"$out/log" 2>&1
}

mutate() { # file, name, sed expression
    cp core/spsc.c core/spsc.h core/doorbell.h core/check.h "$out/core/"
    sed "$3" "core/$1" >"$out/core/$1"
    if cmp -s "core/$1" "$out/core/$1"; then
        echo "mutation '$2' changes nothing: correct scripts/mutate.sh"
        failed=$((failed + 1))
        return
    fi
    build
    code=0
    run || code=$?
    case $code in
    0 | 124)
        echo "mutation '$2' was not noticed (exit $code)"
        failed=$((failed + 1))
        ;;
    *)
        printf '%-34s noticed: %s\n' "$2" \
            "$(grep -o -m 1 -E 'CHECK failed.*|WARNING: ThreadSanitizer: [a-z ]*' "$out/log")"
        passed=$((passed + 1))
        ;;
    esac
}

cp core/spsc.c core/spsc.h core/doorbell.h core/check.h "$out/core/"
flags='-O1 -g -fsanitize=thread'
build
run || {
    cat "$out/log"
    echo "the test fails without any mutation"
    exit 1
}

mutate spsc.c 'publish is relaxed' '/&ring->tail, ring->fill/s/release/relaxed/'
mutate spsc.c 'release is relaxed' '/&ring->head, ring->take/s/release/relaxed/'
mutate spsc.c 'peek looks relaxed' '/tail_seen = atomic/s/acquire/relaxed/'
mutate spsc.c 'reserve looks relaxed' '/head_seen = atomic/s/acquire/relaxed/'
mutate spsc.c 'reserve never looks again' '/head_seen = atomic/d'
mutate spsc.c 'reserve takes 8 bytes too many' 's/ < needed/ + 8 < needed/'
mutate spsc.c 'padding is not counted' 's/needed = padding + /needed = /'
mutate spsc.c 'padding is not marked' 's/reserved_at != ring->fill/reserved_at == 1/'
mutate spsc.c 'record runs over the end' 's/with_header(size) <= end ? 0 : end/0 * end/'
mutate spsc.c 'padding one record too early' 's/with_header(size) <= end/with_header(size) < end/'
mutate spsc.c 'record is not rounded up' 's/((size + 7U) & ~7U)/size/'
mutate spsc.c 'header is not counted' 's/return SPSC_HEADER_SIZE + (/return (/'
mutate spsc.c 'commit keeps the reserved size' \
    's/&size, sizeof(size));/\&ring->reserved_size, sizeof(size));/'
mutate spsc.c 'commit publishes' 's/ring->reserved_size = 0;$/&(void)spsc_publish(ring);/'
mutate spsc.c 'publish is always true' 's/return false;/return true;/'
mutate spsc.c 'peek passes the record' \
    's/^    \*ret_size = size;/&ring->take += ring->peeked_size;/'
mutate spsc.c 'padding is not skipped' 's/ring->take += to_end(ring, ring->take)/ring->take += 8/'
mutate spsc.c 'release gives back what is unread' '/&ring->head, ring->take/s/take/tail_seen/'
mutate spsc.c 'next gives nothing back' 's/ring->take += ring->peeked_size/(void)ring->take/'
mutate spsc.c 'used leaves out what is passed' '/->tail, memory.*- head/s/- head/- ring->take/'

flags='-O2'
mutate doorbell.h 'sleeper stores' '/&bell->asleep, true/{s/exchange/store/; s/acquire/release/}'
mutate doorbell.h 'waker loads first' \
    's/return atomic_ex/return atomic_load(\&bell->asleep) \&\& atomic_ex/'
mutate doorbell.h 'sleeper does not say so' '/&bell->asleep, true/s/true/false/'
mutate doorbell.h 'sleeper stays asleep when awake' '/(void).*&bell->asleep, false/s/false/true/'
mutate doorbell.h 'waker never rings' '/return atomic_exchange/s/return/return false \&\&/'
mutate doorbell.h 'waker rings for ever' '/return atomic_exchange/s/false/true/'

echo "$passed passed, $failed failed, 0 skipped"
[ "$failed" -eq 0 ]
