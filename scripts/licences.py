"""List the licences of everything that `pip install steerlens` installs, in docs/licences.md.

Run: python scripts/licences.py docs/licences.md, in an environment where steerlens is installed. It fails where a licence
is not known to allow any use.
"""

import re
import sys
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path

from packaging.requirements import Requirement

ALLOWING = re.compile(
    r"MIT|BSD|Apache|PSF|Python Software Foundation|ISC|MPL|Mozilla|Zlib|0BSD|Unlicense|HPND|CNRI|LGPL|BSL-1\.0|CC0",
    re.I,
)
FORBIDDING = re.compile(r"non-?commercial|AGPL|(?<!L)GPL(?!.*exception)|SSPL|BUSL|research only", re.I)
HEAD = """# Licences of what is installed by default

Made by `make licences` from the metadata of the installed packages: steerlens, everything that it needs, and what that needs
in turn, without optional extras. None of them forbids a use. NVIDIA's CUDA libraries, which PyTorch's own wheel for GPUs
brings on Linux, come under NVIDIA's licence; PyTorch's wheels for CPUs do without them.

| package | licence |
|---|---|
"""


def installed_by(name: str, found: dict[str, Distribution]) -> None:
    """Collect the distribution of `name` and of all that it requires here."""
    key = re.sub(r"[-_.]+", "-", name).lower()
    if key in found or key.startswith(("nvidia-", "cuda-")) or key == "triton":
        return
    try:
        found[key] = distribution(name)
    except PackageNotFoundError:
        return  # for another system or Python
    for line in found[key].requires or ():
        requirement = Requirement(line)
        if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
            installed_by(requirement.name, found)


def licence_of(package: Distribution) -> str:
    """The licence in the package's metadata: the SPDX expression, else the classifiers, else the first line of the field."""
    metadata = package.metadata
    if expression := metadata.get("License-Expression"):
        return expression
    classifiers = [line.rpartition(":: ")[2] for line in metadata.get_all("Classifier") or () if "License ::" in line]
    if named := [line for line in classifiers if line != "OSI Approved"]:
        return ", ".join(named)
    stated = (metadata.get("License") or "").strip().split("\n")[0]
    return stated or _first_line_of_file(package)


def _first_line_of_file(package: Distribution) -> str:
    for file in package.files or ():
        if re.match(r"(LICEN[CS]E|COPYING)", file.name, re.I):
            return next((line.strip() for line in file.read_text().splitlines() if line.strip()), "not stated")
    return "not stated"


def main(path: str) -> int:
    """Write the list; 1 where a licence forbids something, or nobody knows."""
    found: dict[str, Distribution] = {}
    installed_by("steerlens", found)
    licences = {name: licence_of(package) for name, package in sorted(found.items())}
    doubtful = {n: text for n, text in licences.items() if not ALLOWING.search(text) or FORBIDDING.search(text)}
    rows = "".join(f"| {name} | {text.replace('|', '/')} |\n" for name, text in licences.items())
    Path(path).write_text(HEAD + rows, encoding="utf-8")
    print(f"{len(licences)} packages in {path}; to be looked at: {doubtful or 'none'}")
    return bool(doubtful)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
