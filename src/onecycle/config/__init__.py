"""The configuration: what each key may be, how it is composed, its coordinates."""
