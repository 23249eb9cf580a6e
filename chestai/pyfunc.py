"""The loader module that models name which were registered before `chestai.model.pyfunc` had its place."""

from chestai.model.pyfunc import _load_pyfunc as _load_pyfunc
