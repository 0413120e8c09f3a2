"""Images from their source to augmented batches on the training device."""
