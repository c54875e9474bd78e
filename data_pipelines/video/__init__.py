"""Video decoding: backends, readers, and the decoding subprocess."""
