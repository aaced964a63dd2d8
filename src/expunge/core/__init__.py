"""The base of everything else: errors, records, plug-ins, files. Never imports torch."""
