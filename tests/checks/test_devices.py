"""Models and modules on another device than the CPU: `cuda` and `mps` are written so, and `fake` stands in for them.

Each program is a process of its own, as a device once known to PyTorch stays known.
"""

import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

pytestmark = pytest.mark.skipif(
    not hasattr(torch.utils.backend_registration, "_setup_privateuseone_for_python_backend"),
    reason="this PyTorch has no devices written in Python, so there is no second device that computes",
)

PROJECT = Path(__file__).resolve().parents[2]
SECONDS = 600  # for what would never end
# Imports what all programs need, and runs each in a child: a line says which, and where what it prints goes.
FORKS = """
import json
import os
import sys
import traceback
from pathlib import Path

import torch
from torch import Tensor, nn

import fake_device
from grader import CheckFailed, GraderError, check, check_generation, compare_layers, load_checkpoint, trace_of
from grader.lessons.lesson import Lesson

lesson = Lesson(Path(sys.argv[1]) / "solutions" / "01-gpt2")
gpt2 = lesson.namespace()
lesson.exercises()
for line in sys.stdin:
    program, printed = json.loads(line)
    child = os.fork()
    if not child:
        code = 1
        try:
            for stream in (1, 2):
                os.dup2(os.open(f"{printed}.{stream}", os.O_WRONLY | os.O_CREAT), stream)
            fake_device.install()
            exec(program)
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""
Runs = Callable[[str], str]


@pytest.fixture(scope="module")
def forks(tmp_path_factory: pytest.TempPathFactory) -> Iterator[subprocess.Popen[str]]:
    path = os.pathsep.join(map(str, (PROJECT / "tests" / "support", PROJECT)))
    errors = (tmp_path_factory.mktemp("devices") / "errors").open("w")
    with errors, subprocess.Popen(
        [sys.executable, "-c", FORKS, str(PROJECT)],
        cwd=PROJECT / "solutions" / "01-gpt2",
        env={**os.environ, "PYTHONPATH": path, "NO_COLOR": "1", "COLUMNS": "150"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=errors,
        text=True,
    ) as process:  # fmt: skip
        yield process
        assert process.stdin is not None
        process.stdin.close()


@pytest.fixture
def on_a_second_device(forks: subprocess.Popen[str], tmp_path: Path) -> Runs:
    """Runs a program with what `FORKS` defines, in lesson 01's folder; returns what it prints."""

    def run(program: str) -> str:
        assert forks.stdin is not None and forks.stdout is not None
        late = threading.Timer(SECONDS, forks.kill)
        late.start()
        print(json.dumps([program, str(tmp_path / "printed")]), file=forks.stdin, flush=True)
        code = forks.stdout.readline().strip()
        late.cancel()
        said, errors = ((tmp_path / f"printed.{stream}").read_text(encoding="utf-8") for stream in (1, 2))
        assert code == "0", said + errors
        return said

    return run


def test_the_device_computes_and_does_not_mix(on_a_second_device: Runs) -> None:
    said = on_a_second_device(
        """
x = torch.arange(6, device="fake").float().reshape(2, 3)
print((x @ x.T).cpu().tolist(), x.device)
try:
    x + torch.ones(2, 3)
except RuntimeError as error:
    print(error)
""",
    )
    assert "[[5.0, 14.0], [14.0, 50.0]] fake:0" in said
    assert "Expected all tensors to be on the same device" in said


ON_DEVICE = """
class OnDevice:
    '''Makes a solution's parameters on the second device, as `device="cuda"` in its code does.'''

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.to("fake")


def on_device(name):
    return type(name, (OnDevice, gpt2[name]), {})
"""


def test_modules_whose_parameters_are_elsewhere_are_right(on_a_second_device: Runs) -> None:
    said = on_a_second_device(
        ON_DEVICE
        + """
recording = lesson.exercises()[0]
for exercise in recording:
    if not exercise.function:
        check(exercise.name, on_device(exercise.solution))
        print("right:", exercise.name)
""",
    )
    assert said.count("right: ") >= 6


def test_a_wrong_module_is_told_the_same_as_on_the_cpu(on_a_second_device: Runs) -> None:
    source = """
class Wrong(gpt2["LayerNorm"]):
    def forward(self, x):
        return (x - x.mean(-1, keepdim=True)) / (x.std(-1, keepdim=True) + 1e-5) * self.weight + self.bias


class Half(gpt2["LayerNorm"]):
    def forward(self, x):
        return super().forward(x) + torch.zeros(1)  # made on the CPU


def tell(solution):
    try:
        check("gpt2.layer_norm", solution)
    except CheckFailed:
        print("-----")


gpt2["Wrong"] = Wrong
tell(Wrong)
tell(on_device("Wrong"))
gpt2["Half"] = Half
tell(on_device("Half"))
"""
    on_cpu, elsewhere, mixed, _ = on_a_second_device(ON_DEVICE + source).split("-----\n")
    assert on_cpu == elsewhere
    assert "Expected all tensors to be on the same device" in mixed or "half" in mixed


@pytest.mark.parametrize("what", ["check", "compare", "generate"])
def test_another_default_device_changes_nothing(on_a_second_device: Runs, what: str) -> None:
    uses = {
        "check": """
for exercise in lesson.exercises()[0]:
    check(exercise.name, gpt2[exercise.solution])
""",
        "compare": "compare_layers(gpt2['GPT2'])",
        "generate": "check_generation(gpt2['GPT2'], 'austen-gpt2', generate=gpt2['generate'])",
    }
    on_a_second_device("torch.set_default_device('fake')\n" + uses[what])


def test_a_trained_model_on_the_device_writes_the_references_text(on_a_second_device: Runs) -> None:
    said = on_a_second_device(
        """
checkpoint = load_checkpoint("austen-gpt2")
model = gpt2["GPT2"](checkpoint.config).to("fake")
checkpoint.load_into(model)
print(next(model.parameters()).device)
check_generation(model, checkpoint, generate=gpt2["generate"])
compare_layers(gpt2["GPT2"])
print(next(model.parameters()).device)
""",
    )
    assert said.count("fake:0\n") == 2


def test_a_trace_of_a_model_on_the_device_is_on_the_cpu(on_a_second_device: Runs) -> None:
    said = on_a_second_device(
        """
model = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2)).to("fake")
trace = trace_of(model, torch.ones(2, 3).to("fake"), build={})
print(trace.output.device, trace.args[0].device, {call.output.device.type for call in trace.calls})
compare_layers(model, trace)
""",
    )
    assert "cpu cpu {'cpu'}" in said


def test_weights_are_not_loaded_into_a_model_without_memory(on_a_second_device: Runs) -> None:
    said = on_a_second_device(
        """
checkpoint = load_checkpoint("austen-gpt2")
with torch.device("meta"):
    model = gpt2["GPT2"](checkpoint.config)
try:
    checkpoint.load_into(model)
except GraderError as error:
    print(error)
""",
    )
    assert "This model is on `meta`" in said
