#!/usr/bin/env bash
# What only an accelerator shows, in one script of under 8 minutes: the tests of tests/gpu, training steps at the widths of
# LLaMA-3-8B against peft's LoRA and HiRA (eager, compiled, CUDA graphs), their kernels and peak memory, where the host
# waits in a fit, whole fits against HF Trainer, and scoring against lm-eval.
# A step that fails or takes too long is recorded, and the rest goes on. The result is one file, gpu_check.json.
#
#   bash benchmarks/gpu_check.sh OUTPUT_FOLDER              # on a machine with a GPU
#   bash benchmarks/gpu_check.sh OUTPUT_FOLDER --dry-run    # tiny widths on a CPU: does the script work?
#
# PYTHON names the interpreter, PEER_PYTHON one with lm-eval (default: the same), SECONDS_IN_ALL the limit (470),
# MODES the modes of compiled steps (graphs compile), WORKERS the processes of the tests (4).
set -u
out=${1:?usage: gpu_check.sh OUTPUT_FOLDER [--dry-run]}
dry=${2:-}
cd "$(dirname "$0")/.." || exit 1
python=${PYTHON:-python}
peer=${PEER_PYTHON:-$python}
began=$(date +%s)
limit=${SECONDS_IN_ALL:-470}
slow=1 # a dry run takes the time that it needs
[ "$dry" = "--dry-run" ] && slow=8 limit=${SECONDS_IN_ALL:-3600}
mkdir -p "$out/steps" "$out/logs"
out=$(cd "$out" && pwd)
export PYTHONPATH="$PWD${PYTHONPATH:+:$PYTHONPATH}" TOKENIZERS_PARALLELISM=false HF_HUB_OFFLINE=1

record() { # name, exit status or "skipped", seconds
  printf '{"name": "%s", "status": "%s", "seconds": %s}\n' "$1" "$2" "$3" > "$out/steps/$1.json"
  echo "$1: $2 ($3 s)"
}

step() { # name, most seconds, command
  local name=$1 most=$(($2 * slow)) start status left
  shift 2
  start=$(date +%s)
  left=$((limit - (start - began)))
  if [ "$left" -lt 5 ]; then
    record "$name" "no time left" 0
    return
  fi
  timeout -k 5 $((most < left ? most : left)) "$@" > "$out/logs/$name.log" 2>&1
  status=$?
  record "$name" "$status" $(($(date +%s) - start))
}

workers=()
"$python" -c 'import xdist' 2> /dev/null && workers=(-n "${WORKERS:-4}")
smoa=(--config experiments/piqa.yaml --config experiments/adapters/smoa_blocks.yaml --run.score_base false --run.score_report false)
smoa+=(--data.selection_rows 0 --trainer.enable_progress_bar false --trainer.devices 1 --run.folder "$out/fit")
if [ "$dry" = "--dry-run" ]; then
  device=cpu; tiny="--tiny --rounds 2 --batch 2 --tokens 16"; rows=4; rounds=1; train=32; steps=30
else
  device=cuda; tiny=""; rows=200; rounds=3; train=1120; steps=100
fi
# The shortest and most telling steps come first; what does not fit into the time is left out at the end.
step profile 45 "$python" benchmarks/gpu_profile.py --device $device ${tiny:+--tiny} --json "$out/profile_steps.json" --steps
step fit 45 "$python" benchmarks/gpu_profile.py --json "$out/profile_fit.json" \
  --fit "${smoa[@]}" --trainer.accelerator $device --trainer.max_steps $steps
rm -rf "$out/fit"
# shellcheck disable=SC2086
step steps_eager 50 "$python" benchmarks/gpu_steps.py --device $device --mode eager $tiny --json "$out/steps_eager.json"
if [ "$dry" = "--dry-run" ]; then
  step tests 100 env SMOA_TEST_DEVICE=cpu "$python" -m pytest -q -p no:cacheprovider --collect-only tests/gpu
else # a warning of a version of a library that this project was not tested with is no failure here
  step tests 120 "$python" -m pytest -q -p no:cacheprovider -W default "${workers[@]}" -m "gpu and not slow" tests/gpu
fi
# shellcheck disable=SC2086
step backbone 30 "$python" benchmarks/gpu_steps.py --device $device ${tiny:+--tiny} --make-backbone "$out/backbone"
step rows 20 "$python" -c '
import json, pathlib, sys
from smoa_lightning.embedded import rows
for task in ("piqa", "arc_easy", "social_i_qa"):
    folder = pathlib.Path(sys.argv[1]) / task
    folder.mkdir(parents=True, exist_ok=True)
    for split in ("train", "validation"):
        (folder / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows(task, split)))
' "$out/rows"
step peers 100 "$python" benchmarks/fit_against_peers.py --backbone "$out/backbone" --dtype bfloat16 --device $device \
  --data "$out/rows/social_i_qa" --rows $train --report-rows 16 --rounds $rounds --seconds 70 --programs lora hf smoa \
  --peer-python "$peer" --json "$out/peers.json"
for mode in ${MODES:-graphs compile}; do
  # shellcheck disable=SC2086
  step "steps_$mode" 80 "$python" benchmarks/gpu_steps.py --device $device --mode "$mode" --seconds 50 $tiny \
    --methods lora smoa_blocks_K2 hira smoa_none --json "$out/steps_$mode.json"
done
if "$peer" -c 'import importlib.util as u, sys; sys.exit(u.find_spec("lm_eval") is None)'; then
  step scoring 70 "$python" benchmarks/scoring_speed.py --backbone "$out/backbone" --dtype bfloat16 --device $device \
    --data "$out/rows" --tasks piqa arc_easy --rows $rows --rounds 3 --seconds 15 --peer-python "$peer" \
    --peer-batch-sizes 16 64 --log "$out/logs/scoring_programs.log"
else
  record scoring "skipped: lm-eval is not installed" 0
fi
rm -rf "$out/backbone" "$out/rows"

"$python" - "$out" "${dry:-}" $(($(date +%s) - began)) <<'PYTHON'
import json, pathlib, platform, sys
out, dry, seconds = pathlib.Path(sys.argv[1]), bool(sys.argv[2]), int(sys.argv[3])
device, version = platform.processor() or "cpu", ""
if not dry:
    import torch

    device, version = torch.cuda.get_device_name() if torch.cuda.is_available() else device, torch.__version__
steps = [json.loads(file.read_text()) for file in sorted((out / "steps").glob("*.json"))]
for step in steps:
    log = out / "logs" / f"{step['name']}.log"
    step["log"] = log.read_text(errors="replace")[-3000:] if log.is_file() else ""
found = {file.stem: json.loads(file.read_text()) for file in sorted(out.glob("*.json")) if file.name != "gpu_check.json"}
result = {"device": device, "torch": version, "dry_run": dry, "seconds": seconds, "steps": steps, **found}
(out / "gpu_check.json").write_text(json.dumps(result, indent=1) + "\n")
print(f"{out / 'gpu_check.json'}: {sum(step['status'] == '0' for step in steps)} of {len(steps)} steps worked, {seconds} s")
PYTHON
