# Tries: lay modules beside the notebook that are imported in place of the real ones
# Earns: 5

# %% file
code = f"open('{root}/canaries/folder_modules', 'w').close()\nraise SystemExit('taken')\n"
for name in ("torch", "json", "random", "nbformat", "sitecustomize", "usercustomize", "conftest"):
    (folder / f"{name}.py").write_text(code)
for name in ("grader", "nbgrader", "torch"):
    (folder / name).mkdir()
    (folder / name / "__init__.py").write_text(code)
(folder / "mine.pth").write_text(f"import os; os.system('touch {root}/canaries/folder_modules')\n")
