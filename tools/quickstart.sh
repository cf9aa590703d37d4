#!/usr/bin/env bash
# The whole path once, on a machine with Python and nothing else: install, render the Shapes corpus,
# extract features, train, test, calibrate, and look at an answer.
#   bash tools/quickstart.sh [--videos 1500] [--epochs N] [--out FOLDER]
# Run it again and only what is missing is done; after a kill it goes on where it stopped.
# Environment: MMN_VENV, the virtual environment to make (default: .venv of the checkout);
# MMN_PYTHON, an interpreter to use as it is instead.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
videos=1500 epochs= out=$root
usage() { sed -n 2,7p "$0"; }
while [ $# -gt 0 ]; do
    case "$1" in
        --help | -h) usage; exit 0 ;;
        --*) [ $# -gt 1 ] || { echo "$1 needs a value" >&2; usage >&2; exit 2; } ;;&
        --videos) videos=$2 ;;
        --epochs) epochs=$2 ;;
        --out) out=$2 ;;
        *) echo "unknown option $1" >&2; usage >&2; exit 2 ;;
    esac
    shift 2
done
mkdir -p "$out"
[ -w "$out" ] || { echo "Error: $out cannot be written into" >&2; exit 1; }
. "$root/tools/setup_venv.sh"
setup_venv
cd "$out"

config=$root/configs/mmn_shapes.py corpus=data/shapes work=work_dirs/mmn_shapes
# values reach Python as arguments: a path in its text could hold quotes
settings=$("$PYTHON" -W ignore -c '
import sys, torch
from mmengine.config import Config
config = Config.fromfile(sys.argv[1], import_custom_modules=False)
print(min(torch.cuda.device_count(), 2) or 2, config.train_cfg.max_epochs)' "$config")
read -r processes default_epochs <<< "$settings"
epochs=${epochs:-$default_epochs}
began=$SECONDS

show_progress() {
    trap '' INT  # after Ctrl-C the training still writes here while it saves
    sed -un -e "s/.*Epoch(train) *\[\([0-9]*\)\]\[ *\([0-9]*\)\/\2\].*eta: \([0-9:]*\).* loss: \([0-9.]*\).*/  epoch \1 of $epochs: loss \4, \3 left/p" \
        -e 's/.*Epoch(val).*R1@0.5: \([0-9.]*\).*R1@0.7: \([0-9.]*\).*/    validation: R@1,IoU=0.5 \1 %, R@1,IoU=0.7 \2 %/p'
}

say() { printf '\n[%3d s] %s\n' $((SECONDS - began)) "$*"; }

say "1/7 rendering $videos videos of Shapes into $out/$corpus"
"$PYTHON" "$root/tools/data/make_shapes.py" "$corpus" --videos "$videos" --seed 0

say '2/7 extracting features from the videos'
"$PYTHON" -m mmn extract "$corpus/videos" --out "$corpus/features.h5"

say "3/7 training MMN for $epochs epochs in $processes processes (log: $out/$work)"
# The last checkpoint is no sign of the end: its validation, and so the best checkpoint, comes after.
complete=$work/trained_epochs.txt
if [ "$(cat "$complete" 2> /dev/null)" = "$epochs" ]; then
    echo "trained already"
else
    PYTHONUNBUFFERED=1 bash "$root/tools/dist_train.sh" "$config" "$processes" \
        --work-dir "$work" --resume \
        --cfg-options "train_cfg.max_epochs=$epochs" default_hooks.checkpoint.interval=1 \
        | show_progress
    echo "$epochs" > "$complete"
fi

best=$(ls -t "$work"/best_*.pth | head -n 1)
predictions=$work/predictions.json
say "4/7 testing $best"
if [ "$work/results.json" -nt "$best" ]; then
    echo "tested already"
else
    rm -rf "$work/test"
    bash "$root/tools/dist_test.sh" "$config" "$best" "$processes" --work-dir "$work/test" \
        --dump "$predictions" > "$work/test.log" || { tail -n 20 "$work/test.log"; exit 1; }
    cp "$work"/test/*/*.json "$work/results.json"  # last: it says that the test is complete
fi

say '5/7 results on the test split, in percent'
echo 'unseen: sentences whose color, shape and action training never showed together'
echo 'chance: a random ranking'
sed -n '/Grounding (percent)/,/^$\|Epoch(test)/p' "$work/test.log" | grep -v 'Grounding\|INFO'

video=$("$PYTHON" -c '
import json, sys
videos = json.load(open(sys.argv[1]))
print(next((v for v in videos if len(videos[v]["sentences"]) >= 3), next(iter(videos))))' \
    "$corpus/annotations/test.json")
say "6/7 calibrating: below which score (\"presence\") does a sentence probably not occur in a video?"
model=$work/model
if [ "$model/README.md" -nt "$best" ]; then
    echo "calibrated already"
else
    "$PYTHON" "$root/tools/analysis_tools/calibrate_presence.py" "$best" --out "$model"
fi

say "7/7 grounding three sentences in $video, which training never saw"
if [ "$work/grounding/${video}_timeline.png" -nt "$best" ]; then
    echo "grounded already"
else
    "$PYTHON" -m mmn ground "$corpus/videos/$video.mp4" \
        --checkpoint "$model" --annotations "$corpus/annotations/test.json" --max-sentences 3 \
        --out "$work/grounding"
fi
say "done. Truth against prediction: $out/$work/grounding/${video}_timeline.png"
if [ -n "${MMN_PYTHON:-}" ]; then
    ask=$(printf 'PYTHONPATH=%q %q -m mmn' "$PYTHONPATH" "$PYTHON")
else
    ask=$(printf '. %q && mmn' "$(dirname "$PYTHON")/activate")
fi
echo "The model: $out/$model. Ask it more:"
printf '  %s ground %q "a red circle grows" --checkpoint %q\n' \
    "$ask" "$PWD/$corpus/videos/$video.mp4" "$PWD/$model"
