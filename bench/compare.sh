#!/usr/bin/env bash
# Compare this tree's Go benchmarks with another commit's: bash bench/compare.sh [commit]; main without one.
# COUNT runs (6) of the benchmarks that BENCH matches (all) in PACKAGE (./kernels/cpu), in turn, so that both see the
# same minutes of a machine. benchstat says which differences are more than noise.
set -euo pipefail
cd "$(git rev-parse --show-toplevel)"
base=${1:-main} package=${PACKAGE:-./kernels/cpu}
work=$(mktemp -d)
trap 'git worktree remove --force "$work/tree" 2>/dev/null || true; rm -rf "$work"' EXIT
git worktree add --quiet --detach "$work/tree" "$base"
${GO:-go} test -c -o "$work/new.test" "$package"
(cd "$work/tree" && ${GO:-go} test -c -o "$work/base.test" "$package")
for ((i = 0; i < ${COUNT:-6}; i++)); do
	for side in base new; do
		(cd "$package" && "$work/$side.test" -test.run '^$' -test.bench "${BENCH:-.}" -test.benchtime "${BENCHTIME:-100ms}") >>"$work/$side"
	done
done
${GO:-go} run golang.org/x/perf/cmd/benchstat@v0.0.0-20260908200009-22c9c6c9d4da "$work/base" "$work/new"
