"""The examples in docstrings give what they say."""

import doctest
import importlib
import pkgutil

import pytest

import pictures_spark

MODULES = [found.name for found in pkgutil.walk_packages(pictures_spark.__path__, "pictures_spark.")]


@pytest.mark.parametrize("name", MODULES)
def test_examples_of_a_module(name):
    assert doctest.testmod(importlib.import_module(name)).failed == 0
