"""What the services tell each other, held against files that were written once and are not written again."""
