"""Networks in plain torch, chosen by `conf/model`. Importing this package does not import torch."""
