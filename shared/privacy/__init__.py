"""Personal data: sealed fields, and the citizen's tracking secret."""
