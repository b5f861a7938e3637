#!/usr/bin/env bash
# Replays the corpus of every target, sees that each control is found out, and then fuzzes each target, two at a time:
#
#     fuzz/run.sh [seconds for each target, 60 unless said] [targets, all unless named]
#
# Stable Rust is enough. What crashes a target stays in `fuzz/artifacts/<target>/`; what is new goes into a working
# corpus in the target directory. MINIMISE=1 merges that into the committed corpus instead of fuzzing.
set -euo pipefail
cd "$(dirname "$0")"

seconds=${1:-60}
shift || true
all=(catalogue document identity mirror value webhook wire_client wire_server)
targets=("${@:-${all[@]}}")

export CARGO_INCREMENTAL=0 CARGO_TERM_COLOR=never
export CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-${XDG_CACHE_HOME:-$HOME/.cache}/bevy_player_data-fuzz}"
host=$(rustc -vV | sed -n 's/^host: //p')
logs=$CARGO_TARGET_DIR/fuzz-logs
mkdir -p "$logs"

# A sanitizer needs nightly Rust. Without one panics, failed assertions, hangs and memory that is asked for are seen,
# which is what safe code can do wrong.
cargo fuzz --version >/dev/null 2>&1 || cargo install cargo-fuzz --version 0.13.2 --locked
if [ $# -eq 0 ]; then
    cargo fuzz build --sanitizer none --codegen-units 16
else
    for target in "${targets[@]}"; do
        cargo fuzz build --sanitizer none --codegen-units 16 "$target"
    done
fi

binary() { echo "$CARGO_TARGET_DIR/$host/release/$1"; }

# fuzz <target> <log> <arguments…>
fuzz() {
    local target=$1 log=$2
    shift 2
    mkdir -p "artifacts/$target"
    "$(binary "$target")" -artifact_prefix="artifacts/$target/" -max_len=4096 -timeout=20 -rss_limit_mb=1024 \
        -print_final_stats=1 -dict="dictionaries/$target.dict" "$@" >"$log" 2>&1
}

# What the control of each target has to be found out for.
reason() {
    case $1 in
    catalogue) echo 'two products have the id' ;;
    document) echo 'control: the decoder reads behind the end' ;;
    identity) echo 'an id is marked as one' ;;
    mirror) echo 'is torn' ;;
    value) echo 'an older server drops a part of' ;;
    webhook) echo "something is stored without the provider's signature" ;;
    wire_client) echo 'control: a decoder that panics' ;;
    wire_server) echo 'who sends nonsense is disconnected' ;;
    esac
}

fail() {
    tail -n 30 "$2"
    echo "FAILED: $1"
    local input
    input=$(sed -n 's/.*Test unit written to //p' "$2" | tail -n 1)
    if [ -n "$input" ]; then
        input=$(realpath "$input")
        echo "the input: $input"
        echo "again:     $(binary "$3") $input"
    fi
    exit 1
}

replay() {
    local target=$1 log=$logs/$1.replay
    fuzz "$target" "$log" -runs=0 "corpus/$target" || fail "$target: an input of the corpus" "$log" "$target"
    grep -q 'INITED cov' "$log" || fail "$target: nothing was replayed" "$log" "$target"
    printf '%-12s %3s inputs replayed, %s\n' "$target" "$(find "corpus/$target" -type f | wc -l)" \
        "$(sed -n 's/.*INITED \(cov: [0-9]* ft: [0-9]*\).*/\1/p' "$log" | tail -n 1)"
}

# The same target with one mechanism taken out. What it finds is thrown away.
control() {
    local target=$1 log=$logs/$1.control scratch
    scratch=$(mktemp -d)
    mkdir "$scratch/corpus"
    if FUZZ_CONTROL=$target fuzz "$target" "$log" -artifact_prefix="$scratch/" -max_total_time=120 -seed=1 \
        "$scratch/corpus" "corpus/$target"; then
        fail "$target: its control was not found out" "$log" "$target"
    fi
    grep -qF "$(reason "$target")" "$log" || fail "$target: its control fails for another reason" "$log" "$target"
    rm -r "$scratch"
    printf '%-12s control found out: %s\n' "$target" "$(reason "$target")"
}

explore() {
    local target=$1 log=$logs/$1.log work=$CARGO_TARGET_DIR/fuzz-corpus/$1
    mkdir -p "$work"
    fuzz "$target" "$log" -max_total_time="$seconds" "$work" "corpus/$target" || fail "$target" "$log" "$target"
    local runs new coverage
    runs=$(sed -n 's/^stat::number_of_executed_units: *//p' "$log")
    new=$(sed -n 's/^stat::new_units_added: *//p' "$log")
    coverage=$(sed -n 's/.* \(cov: [0-9]* ft: [0-9]*\).*/\1/p' "$log" | tail -n 1)
    printf '%-12s %9s runs in %s s, %s, %s new inputs, no crash\n' "$target" "$runs" "$seconds" "$coverage" "$new"
    [ "${runs:-0}" -gt 0 ]
}

# Merges what was found into the committed corpus: few files, short ones, with the same coverage.
minimise() {
    local target=$1 work=$CARGO_TARGET_DIR/fuzz-corpus/$1 merged
    merged=$(mktemp -d)
    mkdir -p "$work" "corpus/$target"
    FUZZ_SEEDS="$merged/seeds" "$(binary "$target")" >"$logs/$target.seeds" 2>&1
    mkdir "$merged/all"
    fuzz "$target" "$logs/$target.merge" -merge=1 "$merged/all" "corpus/$target" "$merged/seeds" "$work"
    # The seeds and known crashes stay; of the rest a fixed choice that leaves the corpus small.
    find "corpus/$target" -type f ! -name 'crash-*' -delete
    cp "$merged"/seeds/* "corpus/$target/"
    python3 - "$merged/all" "corpus/$target" 60 <<'PYTHON'
import os, random, shutil, sys
source, target, most = sys.argv[1], sys.argv[2], int(sys.argv[3])
names = sorted(os.listdir(source))
random.Random(1).shuffle(names)
room = most - len(os.listdir(target))
for name in names[:max(room, 0)]:
    shutil.copy(os.path.join(source, name), os.path.join(target, name[:16]))
PYTHON
    rm -r "$merged"
    printf '%-12s %s inputs\n' "$target" "$(find "corpus/$target" -type f | wc -l)"
}

# Runs a function for every target, two at a time.
for_each() {
    local step=$1
    export -f "$step" fuzz fail binary reason
    export seconds logs host
    printf '%s\0' "${targets[@]}" | xargs -0 -P 2 -I '{}' bash -euo pipefail -c "$step {}"
}

if [ -n "${MINIMISE:-}" ]; then
    for_each minimise
    exit
fi
for_each replay
for_each control
if [ "$seconds" -gt 0 ]; then
    for_each explore
fi
