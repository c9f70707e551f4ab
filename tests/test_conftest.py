"""A test file that cannot be imported is reported as that, and the table of faults is as ever."""

import shutil
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent


def test_a_failing_import_is_reported_as_what_it_is(tmp_path: Path) -> None:
    shutil.copy2(HERE / "conftest.py", tmp_path)
    (tmp_path / "test_broken.py").write_text("import nothing_of_this_name\n")
    (tmp_path / "test_left_out.py").write_text("import pytest\npytest.skip('not here', allow_module_level=True)\n")
    (tmp_path / "test_good.py").write_text(
        "import pytest\n@pytest.mark.fault('an odd fault')\ndef test_it():\n    pass\n"
    )
    words = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "--continue-on-collection-errors", tmp_path]
    done = subprocess.run(words, capture_output=True, text=True, cwd=tmp_path)
    assert "INTERNALERROR" not in done.stdout + done.stderr
    assert "No module named 'nothing_of_this_name'" in done.stdout
    assert "an odd fault       1         1" in done.stdout
    assert "1 passed, 1 skipped, 1 error" in done.stdout
    assert done.returncode == 1
