#!/usr/bin/env bash
# The same text through V1, V2 and V3 on a simulated cluster of 64 GPUs: installs moesim into .venv if need be,
# simulates, and leaves the reports in reports/.
set -euo pipefail
cd "$(dirname "$0")"
. .ci/venv.sh
make_venv requirements.lock

for scenario in quickstart v1-v2-v3 deepseek-v3-prefill-ep64; do
    .venv/bin/moesim run "$scenario" --out "reports/$scenario"
done
echo
echo "Open reports/v1-v2-v3/report.html: one text, three routers, one cluster."
