"""What sees every operation that PyTorch dispatches."""

from torch.utils._python_dispatch import TorchDispatchMode


class Mode(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """PyTorch's own mode, without its compiler: keeping that away imports 800 modules, which takes a second."""

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # nothing is compiled here
