"""For authors: record a lesson from the reference, build what is committed, and find what is stale."""
