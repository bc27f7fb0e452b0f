"""The requests that the suite sends, and what came of each."""
