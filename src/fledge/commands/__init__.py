"""The verbs as functions: each builds rooms, joins them, and returns a result."""
