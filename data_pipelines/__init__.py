"""Everything between a file on disk and a batch: decoding, views, transforms, data sets, loaders."""
