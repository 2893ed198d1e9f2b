"""One submission: read, run in jailed children, judged, and told to the student."""
