"""Packages that a program imports and that are not installed: empty ones stand for them while nothing of them runs.

Training code imports much that a forward pass on one processor has no use for. What it does use of a package for
several processors, a layer cut into parts, is the whole layer where there is one process.
"""

import importlib.util
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.machinery import ModuleSpec
from types import MethodType, ModuleType
from typing import Any

from torch import nn

MOST = 40  # packages of one program
_stubbed: dict[str, None] = {}
_loading: list[bool] = []


def stubbed() -> tuple[str, ...]:
    """The names of the packages that empty ones stand for."""
    return tuple(_stubbed)


def can_stub(error: BaseException | None) -> bool:
    """Whether a program stopped at a package that is not installed, and has an empty one from now on."""
    while error is not None and not isinstance(error, ModuleNotFoundError):
        error = error.__cause__ or error.__context__  # it said in its own words what is missing
    name = error.name if error is not None else None
    top = (name or "").partition(".")[0]
    if not top or top in _stubbed or len(_stubbed) >= MOST or top in sys.stdlib_module_names:
        return False
    if top in sys.modules or importlib.util.find_spec(top) is not None:
        return False
    _stubbed[top] = None
    return True


@contextmanager
def stubs() -> Iterator[None]:
    """While a program is loaded: what it calls of an empty package does nothing. Afterwards it raises ImportError."""
    if not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.append(_Finder())
    _loading.append(True)
    try:
        yield
    finally:
        _loading.pop()


class _Package(ModuleType):
    __version__ = "0"  # older than every version that a program asks for

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return _thing(f"{self.__name__}.{name}")


class _Finder:
    """Finds empty packages for the names that were asked for."""

    def find_spec(self, fullname: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        if fullname.partition(".")[0] not in _stubbed:
            return None
        return ModuleSpec(fullname, self, is_package=True)  # type: ignore[arg-type]

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        return _Package(spec.name)

    def exec_module(self, module: ModuleType) -> None:
        pass


class _Thing:
    """What a program takes from an empty package: a base class, a decorator, a type in an annotation."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return _thing(f"{self._name}.{name}")

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if not _loading:
            package = self._name.partition(".")[0]
            raise ImportError(f"it runs `{self._name.removesuffix('()')}`, and {package} is not installed here")
        if len(args) == 1 and not kwargs and isinstance(args[0], _Decorated):
            return args[0]  # a further decorator
        if len(args) == 1 and not kwargs and callable(args[0]) and not isinstance(args[0], _Thing):
            return args[0] if isinstance(args[0], type) else _Decorated(args[0])
        return _Thing(f"{self._name}()")

    def __mro_entries__(self, bases: Any) -> tuple[type, ...]:
        return (nn.Module,) if self._name.endswith("Module") else ()

    def __getitem__(self, key: Any) -> Any:
        return self

    def __or__(self, other: Any) -> Any:
        return self

    __ror__ = __or__

    def __add__(self, other: Any) -> Any:
        return other

    __radd__ = __add__

    def __bool__(self) -> bool:
        return not self._name.endswith("()")

    def __iter__(self) -> Iterator[Any]:
        return iter(())

    def __lt__(self, other: Any) -> bool:
        return False

    __le__ = __gt__ = __ge__ = __lt__

    def __instancecheck__(self, instance: Any) -> bool:
        return False

    def __subclasscheck__(self, subclass: Any) -> bool:
        return False


class _Decorated(_Thing):
    """A function of the program's that a missing package decorates: a kernel, which may be asked for its settings."""

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__(getattr(function, "__name__", "function"))
        self._function = function

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._function(*args, **kwargs)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return _Settings(f"{self._name}.{name}")

    def __get__(self, instance: Any, owner: type | None = None) -> Any:
        return self if instance is None else MethodType(self._function, instance)


class _Settings(_Thing):
    """The settings of a kernel, of which there is at least one: a program may take the smallest block of them."""

    def __iter__(self) -> Iterator[Any]:
        return iter((_Thing(f"{self._name}[0]"),))


class _WholeLinear(nn.Linear):
    """A linear layer that is cut among processes, where there is one."""

    def __init__(self, in_features: int, out_features: int, bias: bool = True, **_: Any) -> None:
        super().__init__(in_features, out_features, bias)


class _WholeEmbedding(nn.Embedding):
    """An embedding that is cut among processes, where there is one."""

    def __init__(self, num_embeddings: int, embedding_dim: int, **_: Any) -> None:
        super().__init__(num_embeddings, embedding_dim)


# What the end of a name means where one process does all.
OF_ONE_PROCESS: tuple[tuple[str, Callable[[], Any]], ...] = (
    ("ParallelLinear", lambda: _WholeLinear),
    ("ParallelEmbedding", lambda: _WholeEmbedding),
    ("_world_size", lambda: lambda *_: 1),
    ("_rank", lambda: lambda *_: 0),
    ("is_initialized", lambda: lambda *_: True),
)


def _thing(name: str) -> Any:
    return next((made() for ending, made in OF_ONE_PROCESS if name.endswith(ending)), None) or _Thing(name)
