#!/usr/bin/env bash
# Models like those shipped from the data sets as downloaded: prepare, train the stages, publish, draw the curves. (The shipped
# ISIC model has an encoder of its own; here it starts from ImageNet, as the others do. The shipped LIDC models started from one
# another several times. Trained once each: a range over SEEDS is of the draw alone.)
#
#   scripts/train_models.sh DATA OUT [NAME…]        all of them, or those named (see MODELS)
#
# MINUTES       training of a segmenter (10); codecs get a third of it each
# MINUTES_OF_*  the same for one model, e.g. MINUTES_OF_isic2018=45
# CASES         score so many test cases, evenly spaced (all; 100 for the curves)
# SEEDS         draw the masks with so many seeds (3)
# GLIBC_TUNABLES=glibc.malloc.hugetlb=1 (Linux, CPU) takes a fifth off the time of the encoder at 256²: set it before calling this.
# EXTRA         further flags of `manymask train`, e.g. "--recipe.training.batch 64"
#
# Run again it goes on: a stage that has left its model is skipped, one that was cut off goes on from its checkpoint, and takes
# its whole time once more.
# OUT/stores/RECIPE, OUT/runs/NAME, OUT/models/NAME, OUT/results/NAME
set -euo pipefail
[ $# -ge 2 ] || { sed -n '2,17s/^# \{0,1\}//p' "$0"; exit 2; }
data=$1 out=$2
shift 2

# name | recipe of store and codecs | of the segmenter | split | starts from
MODELS='
cvc_clinicdb          | cvc_clinicdb-256 | cvc_clinicdb-256           | pranet       |
cvc_clinicdb_sequence | cvc_clinicdb-256 | cvc_clinicdb-256           | sequence     |
isic2018              | isic2018         | isic2018-imagenet          | training-ids |
polyps                | polyps-256       | polyps-256                 | pranet       |
lidc_idri             | lidc_idri        | lidc_idri-imagenet         | patient      |
lidc_idri_readers     | lidc_idri        | lidc_idri_readers-imagenet | patient      | lidc_idri
'

stage() { # NAME STAGE RECIPE MINUTES [flags]
    local name=$1 stage=$2 recipe=$3 minutes=$4
    shift 4
    [ -e "$out/runs/$name/$stage/model/config.json" ] && return
    # shellcheck disable=SC2086
    manymask train "$recipe" "$stage" --run "$out/runs/$name" --max-minutes "$minutes" "$@" ${EXTRA:-}
}

build() { # NAME CODECS SEGMENTER SPLIT START
    local name=$1 codecs=$2 store=$out/stores/$2 recipe=$3 split=$4 start=$5
    local of=MINUTES_OF_$name minutes codec common
    minutes=${!of:-${MINUTES:-10}}
    codec=$(awk "BEGIN { print $minutes / 3 }")
    common=(--data "$store" --scheme "$split")
    [ -e "$store" ] || manymask prepare "$codecs" --source "$data" --out "$store"
    if [ -n "$start" ]; then # codecs come along with the segmenter that it starts from
        common+=(--init "$out/runs/$start/segmenter/model")
    else
        stage "$name" mask-codec "$codecs" "$codec" "${common[@]}"
        stage "$name" image-codec "$codecs" "$codec" "${common[@]}"
    fi
    stage "$name" segmenter "$recipe" "$minutes" "${common[@]}"
    manymask publish --run "$out/runs/$name" --data "$store" --model "$out/models/$name" --out "$out/results/$name" \
        --seeds "${SEEDS:-3}" ${CASES:+--cases "$CASES"}
    manymask curves --model "$out/models/$name" --data "$store" --out "$out/results/$name" --cases "${CASES:-100}"
}

while IFS='|' read -r name codecs segmenter split start; do
    [ -n "${name// /}" ] || continue
    # shellcheck disable=SC2086
    case " $* " in "  " | *" ${name// /} "*) build $name $codecs $segmenter $split "${start// /}" ;; esac
done <<< "$MODELS"
