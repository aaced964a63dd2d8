"""Records to terminal table, verdict, HTML report and model card."""
