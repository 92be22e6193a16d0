"""What `import stepensemble` offers: the class, the errors that it raises, the version; and examples that run."""

from __future__ import annotations

import doctest
import subprocess
import sys
from importlib import import_module
from importlib.metadata import version

import pytest

import stepensemble
from builders import ROOT
from stepensemble.core import errors

RAISED = {"EnsembleError", "InvalidManifest", "InvalidPayload", "QuorumNotMet", "ReleaseNotCurrent"}


def test_the_public_names_are_the_class_its_errors_and_the_version() -> None:
    assert set(stepensemble.__all__) == {"Ensemble", "__version__", *RAISED}
    assert set(stepensemble.__all__) <= set(dir(stepensemble))
    assert stepensemble.__version__ == version("stepensemble")
    for name in RAISED:
        assert getattr(stepensemble, name) is getattr(errors, name)
    assert issubclass(stepensemble.Ensemble, object)


def test_each_error_that_a_docstring_of_the_class_names_is_exported() -> None:
    methods = [getattr(stepensemble.Ensemble, name) for name in ("load", "from_release", "predict", "predict_table")]
    text = "\n".join(method.__doc__ or "" for method in methods)
    named = {name for name in vars(errors) if f" {name}: " in text}
    assert named == RAISED - {"EnsembleError"}
    assert all(issubclass(getattr(errors, name), errors.EnsembleError) for name in named)


def test_another_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'Ensembles'"):
        stepensemble.Ensembles  # noqa: B018


def test_nothing_is_imported_before_it_is_used() -> None:
    script = "import stepensemble, sys; dir(stepensemble); print(*[m for m in sys.modules if m.startswith('stepens')])"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["stepensemble"]


@pytest.mark.parametrize(("module", "examples"), [("stepensemble", 5), ("stepensemble.ensemble", 9)])
def test_the_examples_in_the_docstrings_run(module: str, examples: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    assert doctest.testmod(import_module(module)) == (0, examples)
