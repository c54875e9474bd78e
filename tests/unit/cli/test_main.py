"""The command ``lookupvivit``."""

import ast
import subprocess
import sys
from importlib import import_module

import pytest
from support.paths import ROOT

from lookupvivit.cli.main import COMMANDS, help_text, main
from lookupvivit.config import ConfigError
from lookupvivit.config.loading import load_config
from lookupvivit.config.yaml_files import read_with_base

CONFIGS = sorted((ROOT / "configs").glob("*.yaml"))


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_is_a_tool_and_has_help(name, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["lookupvivit", name, "--help"])
    with pytest.raises(SystemExit) as exit:
        main()
    assert exit.value.code == 0 and f"usage: lookupvivit {name} " in capsys.readouterr().out


def test_every_tool_is_a_command():
    modules = set()
    for file in (ROOT / "tools").glob("*.py"):
        [statement] = [node for node in ast.parse(file.read_text()).body if isinstance(node, ast.ImportFrom)]
        assert import_module(statement.module).main
        modules.add(statement.module)
    assert modules == {module for module, _ in COMMANDS.values()}


@pytest.mark.parametrize("argument", ["--help", "predcit"])
def test_help_and_typing_errors(argument, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["lookupvivit", argument])
    if argument == "--help":
        main()
        assert capsys.readouterr().out.strip() == help_text()
    else:
        with pytest.raises(SystemExit) as exit:
            main()
        assert (
            exit.value.code == 2 and "found the command 'predcit', expected one of train, " in capsys.readouterr().err
        )


def test_listing_the_commands_imports_no_torch():
    code = "import sys; from lookupvivit.cli.main import main; sys.argv[1:] = []; main(); print('torch' in sys.modules)"
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert printed.splitlines()[-1] == "False"


@pytest.mark.parametrize("file", CONFIGS, ids=[file.stem for file in CONFIGS])
def test_configurations_are_found_by_name_from_any_folder(file, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert load_config(file.stem) == load_config(file)


def test_a_base_may_be_a_name_or_a_path_relative_to_its_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "named.yaml").write_text("base: camera_motion\nseed: 3\n")
    (folder / "relative.yaml").write_text("base: named.yaml\n")
    expected = load_config("camera_motion", ["seed=3"])
    assert load_config(folder / "named.yaml") == load_config(folder / "relative.yaml") == expected
    (folder / "camera_motion").write_text("seed: 4\n")  # a file takes precedence over a name
    assert read_with_base(folder / "relative.yaml") == {"seed": 3}


def test_a_misspelled_name_of_a_configuration_is_corrected(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=r"^camera_motoin: no such file, .*, did you mean camera_motion\?$"):
        load_config("camera_motoin")


@pytest.mark.parametrize("name", COMMANDS)
def test_help_imports_no_torch(name):
    code = f"""
import sys
from lookupvivit.cli.main import main
sys.argv[1:] = [{name!r}, "--help"]
try:
    main()
except SystemExit:
    print("torch" in sys.modules)
"""
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert printed.splitlines()[-1] == "False"
