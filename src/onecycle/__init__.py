"""ResNet-9 on CIFAR subsets in one learning-rate cycle: a template and a laboratory."""
