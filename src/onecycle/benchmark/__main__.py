"""`python -m onecycle.benchmark`."""

from onecycle.benchmark.benchmark import main

main()
