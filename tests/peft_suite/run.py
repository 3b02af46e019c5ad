"""Apply peft's own test suite to our configs.

    git clone --branch v0.21.2 https://github.com/huggingface/peft ../peft
    python tests/peft_suite/run.py ../peft                              # every file below
    python tests/peft_suite/run.py ../peft tests/test_custom_models.py -k merge -n 4

The checkout supplies the tests; the installed peft is what they test. Its version should be that of the checkout.
Further arguments go to pytest. Nothing is downloaded: models of the hub are replaced by small random ones of the same
architectures. ``exceptions.py`` lists the known failures with their reasons, which count as ``xfailed``. Every other
failure is a finding, and so is a known failure that no longer fails (unless it depends on random weights). The suite
needs ``accelerate``, ``datasets`` and ``parameterized``; without ``diffusers`` its one name is replaced.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
FILES = [
    "tests/test_custom_models.py",
    "tests/test_decoder_models.py",
    "tests/test_seq_classifier.py",
    "tests/test_feature_extraction_models.py",
]


def main() -> int:
    """Run the suite; return pytest's exit status."""
    if len(sys.argv) < 2 or not (Path(sys.argv[1]) / FILES[0]).is_file():
        print(f"usage: python {sys.argv[0]} CHECKOUT_OF_PEFT [arguments of pytest]", file=sys.stderr)
        return 2
    checkout, arguments = Path(sys.argv[1]).resolve(), sys.argv[2:]
    files = [] if any(word.startswith("tests/") for word in arguments) else FILES
    path = os.pathsep.join([str(checkout), str(HERE), str(HERE.parents[1])])
    environment = {**os.environ, "PYTHONPATH": path, "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, "-m", "pytest", "-p", "plugin", "-p", "no:cacheprovider", "-q"]
    command += ["-o", "addopts=", *files, *arguments]
    return subprocess.call(command, cwd=checkout, env=environment)


if __name__ == "__main__":
    sys.exit(main())
