"""Every lesson's cache, filled in any order: chunks, reads, resets, and a second cache in between.

hypothesis chooses what happens to two caches, and after every append each gives back what it would if it were alone.
"""

from typing import Any, ClassVar

import pytest
import torch
from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule, run_state_machine_as_test
from solved import solved
from torch import Tensor

from grader import Config

BATCH, HEADS, WIDTH, ROOM = 2, 3, 4, 7
WHICH = st.sampled_from([0, 1])
SIZES = st.integers(1, 2 * ROOM)


class TwoCaches(RuleBasedStateMachine):
    """Two caches of one kind, and all that came into each since its last reset.

    A lesson's machine says how to make one, and what an append of new rows [B, H, T, width] gives back.
    """

    rings = False
    cache: Any

    def __init__(self) -> None:
        super().__init__()
        self.caches = [self.made(), self.made()]
        self.texts = [torch.zeros(BATCH, HEADS, 0, WIDTH) for _ in range(2)]
        self.next = 1.0

    def made(self) -> Any:
        raise NotImplementedError

    def append_to(self, cache: Any, new: Tensor) -> Tensor:
        """Appends, and gives back what came back, keys and values alike."""
        keys, values = cache.append(new, -new)
        assert torch.equal(keys, -values)
        return torch.as_tensor(keys)

    def new_rows(self, size: int) -> Tensor:
        """Rows that never came before: [B, H, size, width]."""
        count = BATCH * HEADS * size * WIDTH
        rows = torch.arange(self.next, self.next + count).view(BATCH, HEADS, size, WIDTH)
        self.next += count
        return rows

    @rule(which=WHICH, size=SIZES)
    def append(self, which: int, size: int) -> None:
        cache, text, new = self.caches[which], self.texts[which], self.new_rows(size)
        if not self.rings and text.shape[2] + size > ROOM:
            with pytest.raises(ValueError):
                self.append_to(cache, new)
            assert cache.length == text.shape[2]
            return
        old = text[:, :, max(0, text.shape[2] - ROOM + 1) :] if self.rings else text
        assert torch.equal(self.append_to(cache, new.clone()), torch.cat([old, new], dim=2))
        self.texts[which] = torch.cat([text, new], dim=2)
        assert cache.length == self.texts[which].shape[2]

    @rule(which=WHICH)
    def reset(self, which: int) -> None:
        if hasattr(self.caches[which], "reset"):
            self.caches[which].reset()
        else:
            self.caches[which] = self.made()
        self.texts[which] = self.texts[which][:, :, :0]


class Full(TwoCaches):
    cache: Any = staticmethod(lambda: solved("02-kv-cache").solutions["KVCache"])

    def made(self) -> Any:
        return self.cache()(BATCH, HEADS, ROOM, WIDTH)


class Latent(TwoCaches):
    cache: Any = staticmethod(lambda: solved("05-mla").solutions["LatentCache"])

    def made(self) -> Any:
        config = Config({"kv_lora_rank": HEADS * WIDTH - 4, "qk_rope_head_dim": 4})
        return self.cache()(config, BATCH, ROOM)

    def append_to(self, cache: Any, new: Tensor) -> Tensor:
        rows: Tensor = cache.append(new.transpose(1, 2).flatten(2))
        return rows.view(BATCH, -1, HEADS, WIDTH).transpose(1, 2)


class Ring(TwoCaches):
    rings = True
    cache: Any = staticmethod(lambda: solved("06-sliding-window").solutions["RollingCache"])

    def made(self) -> Any:
        return self.cache()(BATCH, HEADS, ROOM, WIDTH)


MACHINES = [Full, Latent, Ring]


def run(machine: type[TwoCaches], **options: Any) -> None:
    run_state_machine_as_test(
        machine, settings=settings(max_examples=40, stateful_step_count=12, deadline=None, **options)
    )


@pytest.mark.parametrize("machine", MACHINES)
def test_a_cache_gives_back_what_came_in_whatever_the_order(machine: type[TwoCaches]) -> None:
    run(machine)


def shared_memory(own: Any) -> Any:
    """A cache whose class holds the memory of all."""

    class Shared(own):  # type: ignore[misc]
        kept: ClassVar[dict[str, Tensor]] = {}

        def __init__(self, *args: Any) -> None:
            super().__init__(*args)
            for name, value in list(vars(self).items()):
                if isinstance(value, Tensor):
                    setattr(self, name, self.kept.setdefault(name, value))

    return Shared


def length_of_the_class(own: Any) -> Any:
    """A cache whose class counts the tokens of all."""

    class Counted(own):  # type: ignore[misc]
        count = 0

        @property
        def length(self) -> int:
            return type(self).count

        @length.setter
        def length(self, value: int) -> None:
            type(self).count = value

    return Counted


@pytest.mark.parametrize("machine", MACHINES)
@pytest.mark.parametrize("wrong", [shared_memory, length_of_the_class])
def test_a_cache_with_state_on_its_class_does_not(machine: type[TwoCaches], wrong: Any) -> None:
    own = wrong(machine.cache())
    broken = type("Broken", (machine,), {"cache": staticmethod(lambda: own)})
    with pytest.raises(BaseException):  # noqa: B017 - hypothesis raises the assertion, or a group of them
        run(broken, phases=[Phase.generate])  # nobody reads the shortest way to fail
