"""Studies: from a configuration to runs, tables, figures and verdicts."""
