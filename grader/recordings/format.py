"""The file's name and format, and the versions of what a recording is made with."""

RECORDING = "reference.safetensors"
FORMAT = 1
