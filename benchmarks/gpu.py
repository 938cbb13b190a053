"""The contract and the cost of every verb on a GPU, in bfloat16, as one JSON file; for a machine that has nothing but torch.

Weights are random, in the shapes of Llama models with 1 and 8 billion parameters, so none are downloaded. `--wheels`
names a directory with the wheels that the machine lacks; they go into a directory of their own, in front of what is there.
Every part is written as soon as it is measured. What has not been measured after `--seconds` is left out and named.

Run: python benchmarks/gpu.py --out gpu.json [--wheels DIRECTORY] [--device cpu]
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PARTS = ("machine", "1B", "8B", "contract")


def main() -> None:
    """Build the environment, measure in it, and say what is missing."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="the JSON file")
    parser.add_argument("--wheels", type=Path, help="directory with the wheels to install")
    parser.add_argument("--device", default="cuda", help="cpu is a rehearsal, on tiny models")
    parser.add_argument("--seconds", type=int, default=480, help="time for everything after the installation")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        if options.wheels:
            install(options.wheels, directory)
        paths = os.pathsep.join([str(ROOT), directory])
        environment = {**os.environ, "PYTHONPATH": paths, "TQDM_DISABLE": "1"}
        command = [
            sys.executable,
            str(ROOT / "benchmarks" / "gpu_parts.py"),
            str(options.out.resolve()),
            options.device,
        ]
        try:
            code = subprocess.run(command, env=environment, timeout=options.seconds).returncode
        except subprocess.TimeoutExpired:
            code = 124
    found = json.loads(options.out.read_text()) if options.out.is_file() else {}
    missing = [part for part in PARTS if part not in found]
    print(f"{options.out}: {', '.join(found) or 'nothing'}; not measured: {', '.join(missing) or 'nothing'}")
    sys.exit(code or bool(missing))


def install(wheels: Path, directory: str) -> None:
    """Unpack the wheels into a directory of their own, without a network and without what they ask for."""
    options = ["--quiet", "--no-index", "--no-deps", "--no-cache-dir", "--target", directory]
    files = [str(wheel) for wheel in sorted(wheels.glob("*.whl"))]
    if not files:
        raise SystemExit(f"{wheels} holds no wheels. Fill it with pip download --no-deps, or leave --wheels out.")
    subprocess.run([sys.executable, "-m", "pip", "install", *options, *files], check=True)


if __name__ == "__main__":
    main()
