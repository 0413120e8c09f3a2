"""The recipe: module, schedule, optimizer, precision."""
