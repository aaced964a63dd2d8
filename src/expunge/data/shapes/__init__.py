"""Row layouts that others publish: one file each."""
