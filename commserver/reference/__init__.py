"""Programs that stand for other people's: they import nothing of ours."""
