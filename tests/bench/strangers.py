"""Sessions are set up while five strangers do all that strangers can do.

    python tests/bench/strangers.py [--seconds 12] [--seed N] [--workers 2]

16 set-ups are in flight all the time. Ends with 1 if a bar is missed: no failure, an echo within
100 ms in the 99th percentile, 200 MB for a worker, 500 lines in all logs.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from cluster.harness import Cluster  # noqa: E402
from ledger.strangers import attack_from_everywhere, describe  # noqa: E402


def main() -> None:
    parser = argparse.ArgumentParser(description="What strangers cost the others")
    parser.add_argument("--seconds", type=float, default=12)
    parser.add_argument("--seed", type=int, default=random.randrange(2**32))
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args()
    print(f"seed {options.seed}")
    with tempfile.TemporaryDirectory(prefix="sio-bench-") as directory:
        cluster = Cluster(Path(directory), workers=options.workers)
        try:
            cluster.start()
            damage = attack_from_everywhere(cluster, options.seed, options.seconds)
            status = cluster.ctl("sio", "status").stdout
            logs = cluster.logs()
        finally:
            cluster.clean_up()
    print(describe(damage))
    print(status)
    missed = [
        bar
        for bar, met in {
            "0 failures": not damage.failures,
            "99th percentile under 100 ms": damage.percentile(0.99) < 0.1,
            "under 200 MB": damage.memory < 200e6,
            "under 500 lines": damage.lines < 500,
            "the same processes": damage.same,
        }.items()
        if not met
    ]
    if missed:
        for name, text in logs.items():
            print(f"--- {name}", *text.splitlines()[-15:], sep="\n")
        sys.exit(f"missed: {', '.join(missed)}")


if __name__ == "__main__":
    main()
