"""List the installed packages whose licences aren't plainly permissive, for somebody to read."""

import re
from importlib.metadata import distributions

PERMISSIVE = re.compile(
    r"\b(MIT|BSD|Apache|PSF|Python Software|ISC|MPL|Mozilla|Unlicense|HPND|Zlib|0BSD|CC0)", re.IGNORECASE
)

told = set()
for package in distributions():
    about = package.metadata
    classifiers = [line for line in about.get_all("Classifier") or [] if line.startswith("License")]
    said = [about.get("License-Expression") or "", (about.get("License") or "")[:200], *classifiers]
    if not PERMISSIVE.search(" ".join(said)):
        told.add(f"{about['Name']}: {' '.join(filter(None, said))[:80] or 'says none'}")
print(f"licences: {len(told)} packages to look at" + "".join(f"\n  {line}" for line in sorted(told)))
