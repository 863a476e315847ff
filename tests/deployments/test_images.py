"""The Dockerfiles of deployments/images: what they copy, and that the project starts in what they build."""

import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tomllib
import venv
from pathlib import Path

import pytest

from deployments.local import CHECKOUT

IMAGES = CHECKOUT / "deployments" / "images"


def instructions(file):
    """The Dockerfile's instructions, a continued line as one, without comments."""
    text = "\n".join(line for line in (IMAGES / file).read_text("utf-8").splitlines() if not line.startswith("#"))
    return [line.split(maxsplit=1) for line in text.replace("\\\n", " ").splitlines() if line.strip()]


@pytest.mark.parametrize("file", ["training.Dockerfile", "serving.Dockerfile"])
def test_what_an_image_copies_is_there_and_goes_to_the_engine(file):
    kept = {line[1:] for line in (CHECKOUT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    copied = [source for word, rest in instructions(file) if word == "COPY" for source in rest.split()[:-1]]
    assert copied
    for source in copied:
        assert (CHECKOUT / source).exists(), source
        assert source in kept, f"{source} is not sent to the engine (.dockerignore)"


@pytest.mark.parametrize("file", ["training.Dockerfile", "serving.Dockerfile"])
def test_an_image_has_the_python_and_torch_of_the_project(file):
    text = (IMAGES / file).read_text("utf-8")
    project = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())["project"]
    assert f"python:{project['requires-python'].removeprefix('>=')}-slim" in text
    assert re.search(r"^ARG TORCH=(.*)$", text, re.M)[1] in (CHECKOUT / "constraints.txt").read_text().splitlines()
    assert f"prefect-finetune/{file.partition('.')[0]}:{project['version']}" in text


def packages_without_the_project(folder):
    """This environment's packages but for the project itself, which an image has to install."""
    folder.mkdir()
    site = Path(sysconfig.get_path("purelib"))
    for entry in site.iterdir():
        if "prefect_finetune" not in entry.name and entry.suffix != ".pth":
            (folder / entry.name).symlink_to(entry)
    return folder


def built(file, place):
    """What the instructions of a Dockerfile leave: files in `place`, its environment, and an interpreter.

    Packages of others are there already; `pip` does with the project what the image's does.
    """
    venv.create(place / "python", with_pip=False)
    python = place / "python" / "bin" / "python"
    [site] = (place / "python" / "lib").glob("python*/site-packages")
    (site / "others.pth").write_text(str(packages_without_the_project(place / "others")))
    environment = {"PATH": os.environ["PATH"], "HOME": str(place)}
    root = None
    for word, rest in instructions(file):
        if word == "WORKDIR":
            root = place / "image" / rest.lstrip("/")
            root.mkdir(parents=True, exist_ok=True)
        elif word == "COPY" and root:
            copy(rest.split(), root)
        elif word == "ENV":
            environment |= dict(pair.split("=", 1) for pair in rest.replace("=/opt", f"={place}/image/opt").split())
        elif word == "RUN" and root:
            for command in rest.split("&&"):
                run_offline(command.split(), python, root, environment)
    return python, environment


def copy(words, root):
    for source in words[:-1]:
        target = root / words[-1] / (Path(source).name if words[-1] in (".", "./") else "")
        if (CHECKOUT / source).is_dir():
            shutil.copytree(CHECKOUT / source, target, dirs_exist_ok=True)
        else:
            shutil.copy(CHECKOUT / source, target)


def run_offline(command, python, root, environment):
    """A command of RUN; of `pip`, only what it does with the project, without packages of others."""
    if command[0] == "pip":
        if not {".", "-e", "prefect-finetune"} & set(command):
            return
        more = ["--no-deps", "--no-build-isolation"] if command[1] == "install" else []
        command = [sys.executable, "-m", "pip", "--python", str(python), *command[1:], *more]
    done = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, (command, done.stdout, done.stderr)


def test_flows_and_stages_start_in_the_image_of_training(tmp_path):
    python, environment = built("training.Dockerfile", tmp_path)
    version = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())["project"]["version"]
    code = (
        "import flows.domain_adaptation, flows.pipeline, flows.run_stage, blocks, importlib.metadata\n"
        "print(importlib.metadata.version('prefect-finetune'), flows.run_stage.__file__)"
    )
    for more in (environment, {**environment, "PYTHONPATH": ""}):
        done = subprocess.run([python, "-c", code], cwd=tmp_path, env=more, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        assert done.stdout.split() == [version, f"{tmp_path}/image/opt/prefect-finetune/flows/run_stage.py"]


def test_the_image_of_serving_has_nothing_of_the_project_that_could_lack_its_metadata():
    words = [(word, rest) for word, rest in instructions("serving.Dockerfile") if word in ("COPY", "RUN", "CMD")]
    assert [rest for word, rest in words if word == "COPY"] == ["constraints.txt /tmp/constraints.txt"]
    assert not [rest for _, rest in words if re.search(r"\bflows\b|prefect|pip install [^&]* \.( |$)", rest)]
