"""Lists the packages of the image, their licences and their known faults: ``make audit``.

The two programs that it runs are locked in ``requirements/audit.txt`` and have an environment of their own.
Exit code 1: a package has a known fault, or a licence without a judgement. It is no failure if the list of
known faults cannot be reached; ``--only-list`` does not ask for it.
"""

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from tools import licences  # noqa: E402 - run as a script, from the root of the repository

PACKAGES = ROOT / "requirements" / "runtime.txt"
SBOM = ROOT / ".local" / "sbom.cdx.json"
TIMEOUT_SECONDS = 300


def main(uv: str, *options: str) -> int:
    """Run all checks; return the exit code."""
    write_sbom(uv)
    found = judge_licences()
    if "--only-list" not in options:
        found += known_faults(uv)
    return 1 if found else 0


def write_sbom(uv: str) -> None:
    """Write the image's packages with their digests, as CycloneDX 1.6 in JSON."""
    SBOM.parent.mkdir(exist_ok=True)
    arguments = [
        "requirements",
        str(PACKAGES),
        "--output-reproducible",
        "--pyproject",
        str(ROOT / "pyproject.toml"),
    ]
    done = _run(uv, "cyclonedx-py", *arguments, "--sv", "1.6", "--of", "JSON", "-o", str(SBOM))
    if done.returncode != 0:
        raise SystemExit(f"audit: the list of packages could not be written:\n{done.stderr}")
    count = len(json.loads(SBOM.read_text("utf-8"))["components"])
    print(f"audit: {count} packages are listed in {SBOM.relative_to(ROOT)}")


def judge_licences() -> int:
    """Print whether each licence is permissive or has a remark; return the number of faults."""
    try:
        licences.document()
    except ValueError as error:
        print(f"audit: {error}")
        return 1
    print("audit: every licence is permissive or judged, see docs/licences.md")
    return 0


def known_faults(uv: str) -> int:
    """Print the known faults of the locked versions; return the number of packages that have some."""
    arguments = ["-r", str(PACKAGES), "--disable-pip", "--require-hashes", "-s", "osv", "-f", "json"]
    try:
        done = _run(uv, "pip-audit", *arguments, "--progress-spinner", "off", "--timeout", "15")
        checked = list(json.loads(done.stdout)["dependencies"])
    except (subprocess.TimeoutExpired, ValueError, KeyError, TypeError):
        print("audit: NOT CHECKED: the list of known faults could not be reached from here")
        return 0
    skipped = [package for package in checked if "skip_reason" in package]
    faulty = [package for package in checked if package.get("vulns")]
    for package in faulty:
        for fault in package["vulns"]:
            fixed = ", ".join(fault.get("fix_versions", [])) or "no version"
            print(f"audit: {package['name']} {package['version']}: {fault['id']}, fixed in {fixed}")
    for package in skipped:
        print(f"audit: NOT CHECKED: {package['name']}: {package['skip_reason']}")
    print(f"audit: {len(checked) - len(skipped)} packages were looked up, {len(faulty)} have known faults")
    return len(faulty)


def _run(uv: str, *command: str) -> subprocess.CompletedProcess[str]:
    locked = ["--isolated", "--no-project", "--with-requirements", str(ROOT / "requirements" / "audit.txt")]
    return subprocess.run(
        [uv, "run", "--quiet", *locked, *command],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=TIMEOUT_SECONDS,
    )


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
