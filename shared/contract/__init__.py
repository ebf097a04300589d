"""What services say to each other: the facts, their envelope, the stages, and which partition a dossier has."""
