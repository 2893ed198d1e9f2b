"""How long the atlas takes: to be imported, beyond `import grader`, and to read and draw each gallery model."""

import statistics
import subprocess
import sys
import time


def imported(statement: str) -> float:
    """Milliseconds of a statement in a fresh interpreter that has imported grader, the best of five."""
    code = f"import grader, time; start = time.perf_counter(); {statement}; print(time.perf_counter() - start)"
    runs = [subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True) for _ in range(5)]
    return min(float(run.stdout) for run in runs) * 1e3


def drawn() -> dict[str, float]:
    """Milliseconds to read a model's config and draw its whole figure, the best of three, by its name."""
    from grader.atlas import figure, gallery_models, read

    found = {}
    for model in gallery_models().values():
        if model.config is None:
            continue
        times = []
        for _ in range(3):
            start = time.perf_counter()
            figure(read(model.config, model.name))
            times.append((time.perf_counter() - start) * 1e3)
        found[model.name] = min(times)
    return found


if __name__ == "__main__":
    print(f"import grader.atlas, beyond import grader: {imported('import grader.atlas'):.0f} ms")
    figures = drawn()
    slowest = max(figures, key=lambda name: figures[name])
    print(
        f"one figure: median {statistics.median(figures.values()):.1f} ms, most {figures[slowest]:.1f} ms ({slowest})"
    )
