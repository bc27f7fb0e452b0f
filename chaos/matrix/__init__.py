"""`chaos-gate matrix`: the hostile servers of the catalogue against database drivers by themselves, at several settings."""
