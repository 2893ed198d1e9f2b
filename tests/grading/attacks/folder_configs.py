# Tries: lay configuration beside the notebook that tools read where they are started
# Earns: 5

# %% file
code = f"open('{root}/canaries/folder_configs', 'w').close()\n"
for name in ("nbgrader_config.py", "jupyter_config.py", "ipython_config.py", "jupyter_nbconvert_config.py", "setup.py"):
    (folder / name).write_text(code + "c = get_config()\nc.CourseDirectory.root = '/'\n")
(folder / "pyproject.toml").write_text("[tool.pytest.ini_options]\naddopts = '--pyargs nowhere'\n")
(folder / ".ipython/profile_default/startup").mkdir(parents=True)
(folder / ".ipython/profile_default/startup/00-first.py").write_text(code)
(folder / "mark.toml").write_text("points = 500\n")
