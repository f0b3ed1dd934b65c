"""What a run may contain: types, units and ranges; which classes may be named; which runs are the same."""
