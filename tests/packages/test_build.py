"""The Debian package as a file: checked by lintian, and built again."""

import os
import shutil
import subprocess
from pathlib import Path

TOP = Path(__file__).resolve().parents[2]
PACKAGE = os.environ["UPSLOT_DEB"]


def test_lintian():
    checked = subprocess.run(["lintian", "--allow-root", "--fail-on", "error,warning", PACKAGE], capture_output=True, text=True)
    assert (checked.returncode, checked.stdout) == (0, ""), checked


def test_a_build_in_another_folder_has_the_same_bytes():
    target = Path(os.environ.get("CARGO_TARGET_DIR") or TOP / "target")
    copy = target / "packages" / "a-copy-of-the-source"
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(TOP, copy, ignore=shutil.ignore_patterns("target", ".git", "__pycache__", "*.pyc"))
    try:
        variables = dict(os.environ, CARGO_TARGET_DIR=str(copy / "target"),
                         PATH=f"{TOP}/target/cargo-deb/bin:{os.environ['PATH']}")
        again = subprocess.run([copy / "contrib/debian/build"], env=variables, stdout=subprocess.PIPE, text=True, check=True)
        again = Path(again.stdout.strip())
        assert again.is_relative_to(copy) and again.read_bytes() == Path(PACKAGE).read_bytes()
    finally:
        shutil.rmtree(copy, ignore_errors=True)
