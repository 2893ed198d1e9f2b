"""Where submitted code runs: a warm process that holds nothing secret forks one jailed child per submission."""
