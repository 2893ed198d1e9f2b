"""Models and modules on another device than the CPU: `cuda` and `mps` are written so, and `fake` stands in for them.

Each test is a process of its own, as a device once known to PyTorch stays known.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

pytestmark = pytest.mark.skipif(
    not hasattr(torch.utils.backend_registration, "_setup_privateuseone_for_python_backend"),
    reason="this PyTorch has no devices written in Python, so there is no second device that computes",
)

TESTS = Path(__file__).resolve().parent
START = """
import sys
from pathlib import Path

import torch
from torch import Tensor, nn

import fake_device
from grader import CheckFailed, GraderError, check, check_generation, compare_layers, load_checkpoint, trace_of
from grader.lessons.lesson import Lesson

fake_device.install()
lesson = Lesson(Path(sys.argv[1]) / "solutions" / "01-gpt2")
gpt2 = lesson.namespace()
"""


def on_a_second_device(project: Path, cwd: Path, source: str) -> str:
    """What a program says that starts with `START`, in lesson 01's folder. Fails where it raises."""
    path = os.pathsep.join(map(str, (TESTS, project)))
    done = subprocess.run(
        [sys.executable, "-c", START + source, str(project)],
        cwd=project / "solutions" / "01-gpt2",
        env={**os.environ, "PYTHONPATH": path, "NO_COLOR": "1", "COLUMNS": "150"},
        capture_output=True,
        encoding="utf-8",
        timeout=600,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_device_computes_and_does_not_mix(project: Path, tmp_path: Path) -> None:
    said = on_a_second_device(
        project,
        tmp_path,
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


def test_modules_whose_parameters_are_elsewhere_are_right(project: Path, tmp_path: Path) -> None:
    said = on_a_second_device(
        project,
        tmp_path,
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


def test_a_wrong_module_is_told_the_same_as_on_the_cpu(project: Path, tmp_path: Path) -> None:
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
    on_cpu, elsewhere, mixed, _ = on_a_second_device(project, tmp_path, ON_DEVICE + source).split("-----\n")
    assert on_cpu == elsewhere
    assert "Expected all tensors to be on the same device" in mixed or "half" in mixed


@pytest.mark.parametrize("what", ["check", "compare", "generate"])
def test_another_default_device_changes_nothing(project: Path, tmp_path: Path, what: str) -> None:
    uses = {
        "check": """
for exercise in lesson.exercises()[0]:
    check(exercise.name, gpt2[exercise.solution])
""",
        "compare": "compare_layers(gpt2['GPT2'])",
        "generate": "check_generation(gpt2['GPT2'], 'austen-gpt2', generate=gpt2['generate'])",
    }
    on_a_second_device(project, tmp_path, "torch.set_default_device('fake')\n" + uses[what])


def test_a_trained_model_on_the_device_writes_the_references_text(project: Path, tmp_path: Path) -> None:
    said = on_a_second_device(
        project,
        tmp_path,
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


def test_a_trace_of_a_model_on_the_device_is_on_the_cpu(project: Path, tmp_path: Path) -> None:
    said = on_a_second_device(
        project,
        tmp_path,
        """
model = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2)).to("fake")
trace = trace_of(model, torch.ones(2, 3).to("fake"), build={})
print(trace.output.device, trace.args[0].device, {call.output.device.type for call in trace.calls})
compare_layers(model, trace)
""",
    )
    assert "cpu cpu {'cpu'}" in said


def test_weights_are_not_loaded_into_a_model_without_memory(project: Path, tmp_path: Path) -> None:
    said = on_a_second_device(
        project,
        tmp_path,
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
