"""Is a module right? Run it on recorded cases, judge what comes out, and say what it looks like."""
