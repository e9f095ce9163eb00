"""`binder/` as repo2docker reads it. tests/test_notebooks.py runs the tutorials in what it builds."""

from __future__ import annotations

import json
import re
import tomllib
import warnings
from importlib import resources

import pytest
from environments import BINDER_BASE, ROOT, binder_python
from packaging.specifiers import SpecifierSet

with warnings.catch_warnings(action="ignore"):  # it imports a library by its old name
    from repo2docker.app import Repo2Docker
    from repo2docker.buildpacks import PythonBuildPack
    from repo2docker.buildpacks.conda.supported_python_version import SUPPORTED_PYTHON_VERSION

FOLDER = ROOT / "binder"
# All that repo2docker looks for in the folder when it builds with Python.
READ = {"apt.txt", "postBuild", "requirements.txt", "runtime.txt", "start"}


@pytest.fixture
def build(monkeypatch: pytest.MonkeyPatch) -> PythonBuildPack:
    """Return how repo2docker would build the repository: by the first of its ways that takes it."""
    monkeypatch.chdir(ROOT)
    docker = Repo2Docker()
    packs = [kind(docker.base_image) for kind in docker.buildpacks]
    chosen = next(pack for pack in packs if pack.detect())
    assert type(chosen) is PythonBuildPack
    chosen.platform = "linux/amd64"
    return chosen


def test_it_is_built_from_this_folder_and_every_file_in_it_is_read(build: PythonBuildPack) -> None:
    assert build.binder_dir == "binder"
    assert {each.name for each in FOLDER.iterdir()} <= READ


def test_its_python_is_one_that_repo2docker_has_and_that_the_package_takes(build: PythonBuildPack) -> None:
    name, version, date = build.runtime
    assert (name, date) == ("python", None)
    assert build.python_version == version
    assert version in SUPPORTED_PYTHON_VERSION
    assert f"conda/environment.py-{version}-linux-64.lock" in build.get_build_script_files()
    takes = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["requires-python"]
    assert version in SpecifierSet(takes)


def test_the_repository_is_installed_when_all_of_it_is_there(build: PythonBuildPack) -> None:
    installed = [command for _, command in build.get_assemble_scripts()]
    assert installed == ['${KERNEL_PYTHON_PREFIX}/bin/pip install --no-cache-dir -r "binder/requirements.txt"']
    assert build.get_preassemble_scripts() == []
    assert (FOLDER / "requirements.txt").read_text().splitlines() == ["-e .[lab]", "pytest"]


def test_the_tests_environment_begins_with_what_its_images_have(build: PythonBuildPack) -> None:
    lock = f"environment.py-{build.python_version}-linux-64.lock"
    text = (resources.files("repo2docker.buildpacks.conda") / lock).read_text()
    found = dict(re.findall(r"/([\w.-]+?)-(\d[\w.]*)-[^/-]+\.conda", text))
    wanted = dict(each.split("==") for each in BINDER_BASE)
    assert {name: found.get(name) or found.get(name.replace("-", "_")) for name in wanted} == wanted


def test_its_jupyter_serves_the_proxy_and_shows_widgets() -> None:
    prefix = binder_python().parent.parent
    settings = json.loads((prefix / "etc/jupyter/jupyter_server_config.d/jupyter-server-proxy.json").read_text())
    assert settings["ServerApp"]["jpserver_extensions"]["jupyter_server_proxy"] is True
    extensions = {each.parent.name for each in (prefix / "share/jupyter/labextensions").glob("*/package.json")}
    assert "anywidget" in extensions
