"""What a person at an institution types, a module a noun; participant.cli puts them together."""
