"""What everything else stands on: errors, records, plug-ins, files. Never imports torch."""
