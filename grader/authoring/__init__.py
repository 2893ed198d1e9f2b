"""What authors of lessons work with: known mistakes and their families, and drives."""
