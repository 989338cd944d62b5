"""Hold lines and branches to a bar each, which coverage's own figure joins.

coverage json -q -o - | python .ci/coverage_bars.py
"""

import json
import sys

BARS = {"lines": ("covered_lines", "num_statements", 0.95), "branches": ("covered_branches", "num_branches", 0.90)}

totals = json.load(sys.stdin)["totals"]
shares = {name: totals[covered] / totals[all_] for name, (covered, all_, _) in BARS.items()}
print("covered:", ", ".join(f"{share:.1%} of {name} (at least {BARS[name][2]:.0%})" for name, share in shares.items()))
sys.exit(any(share < BARS[name][2] for name, share in shares.items()))
