"""Personal data: sealed fields, and the tracking secret of a dossier."""
