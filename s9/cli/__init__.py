"""Between the shell and the rooms: composing, help, and one plain line for each mistake."""
