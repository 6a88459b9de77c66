"""Images, transforms, data sets and their splits."""
