"""Video decoding: PyAV streams, backends, the decoding process, and the reader that combines them."""
