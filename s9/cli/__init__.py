"""Between the shell and the other packages: composing, help, and one plain line for each mistake."""
