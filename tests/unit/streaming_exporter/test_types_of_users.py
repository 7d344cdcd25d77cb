"""Programs of users pass mypy --strict without the plugin of pydantic: the examples of the documents."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.documents import BLOCKS, ROOT

EXAMPLES = [block for block in BLOCKS if block.language == "python" and "streaming_exporter" in block.text]


@pytest.mark.slow
def test_the_examples_of_the_documents_pass_mypy_without_plugins(tmp_path: Path) -> None:
    assert len(EXAMPLES) > 3
    for number, block in enumerate(EXAMPLES):
        (tmp_path / f"example_{number}.py").write_text(block.text, "utf-8")
    (tmp_path / "mypy.ini").write_text(
        f"[mypy]\nmypy_path = {ROOT}\nignore_missing_imports = true\n"
        "disable_error_code = name-defined\n"  # some examples use names of the program around them
    )
    checked = subprocess.run(
        [
            *(sys.executable, "-m", "mypy", "--strict", "--config-file", "mypy.ini", "--cache-dir", "cache"),
            *(f"example_{number}.py" for number in range(len(EXAMPLES))),
        ],
        check=False, capture_output=True, text=True, cwd=tmp_path,
    )  # fmt: skip
    named = checked.stdout
    for number, block in enumerate(EXAMPLES):
        named = named.replace(f"example_{number}.py", str(block))
    assert checked.returncode == 0, named
