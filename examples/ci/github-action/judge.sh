#!/usr/bin/env bash
# Judge CANDIDATES (one a line) against BASELINE. 0: the build may go on; 1: it may not; 2: a mistake in what was asked.
# The other variables are the inputs of action.yml. It runs anywhere; GitHub's variables are used where they are set.
set -euo pipefail

say() { # say error|warning TEXT
  if [ -n "${GITHUB_ACTIONS:-}" ]; then echo "::$1::$2"; else echo "$1: $2" >&2; fi
}

mapfile -t models < <(printf '%s\n' "$BASELINE" "$CANDIDATES" | sed 's/^[[:space:]]*//; s/[[:space:]]*$//; /^$/d')
work="${RUNNER_TEMP:-$(mktemp -d)}/torchstone-judge"
mkdir -p "$work"

ledger="${LEDGER:-}"
answers=("${models[@]}")
if [ -n "${IMAGES:-}" ]; then # bundles: they answer the images on this machine, in the runtime that they are for
  ledger="${ledger:-torchstone-ledger}"
  answers=()
  for model in "${models[@]}"; do
    file="$work/$(printf '%s' "$model" | tr -c '[:alnum:]._=@-' -).parquet"
    torchstone evaluate "$model" "$IMAGES" --predictions "$file"
    answers+=("$file")
  done
elif [ -z "$ledger" ]; then
  ledger="$([ -d "$BASELINE" ] && printf '%s' "$BASELINE" || dirname "$BASELINE")/ledger"
fi

question=(--evidence "${answers[@]}" --max-drop "${MAX_DROP:-1.0}" --confidence "${CONFIDENCE:-0.95}" --ledger "$ledger")
code=0
torchstone judge "${question[@]}" | tee "$work/verdict.txt" || code=$?
case $code in
  0) outcome=pass ;;
  1) outcome=fail ;;
  3) outcome=undecided ;;
  *) exit "$code" ;; # nothing was judged: the message stands above
esac
torchstone judge "${question[@]}" --json > "$work/verdict.json" 2> /dev/null || true # the same question is the same look

if [ -n "${GITHUB_OUTPUT:-}" ]; then
  printf 'outcome=%s\nverdict=%s\n' "$outcome" "$work/verdict.json" >> "$GITHUB_OUTPUT"
fi
if [ -n "${GITHUB_STEP_SUMMARY:-}" ]; then
  printf '```\n%s\n```\n' "$(cat "$work/verdict.txt")" >> "$GITHUB_STEP_SUMMARY"
fi

if [ "${RECORDED:-true}" = true ]; then # a look that is not in the repository is forgotten with this machine
  for book in "$ledger"/*.json; do
    if ! git ls-files --error-unmatch -- "$book" > /dev/null 2>&1 || ! git diff --quiet HEAD -- "$book"; then
      say error "$book has a look that is not committed: run the same judge command, then git add $book"
      exit 1
    fi
  done
fi

case $outcome in
  fail)
    say error "a candidate is worse than the baseline by more than ${MAX_DROP:-1.0} points"
    exit 1
    ;;
  undecided)
    if [ "${UNDECIDED:-fail}" = warn ]; then
      say warning "these test images cannot tell whether the candidate keeps to the margin"
    else
      say error "these test images cannot tell whether the candidate keeps to the margin"
      exit 1
    fi
    ;;
esac
