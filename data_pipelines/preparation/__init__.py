"""Dataset preparation: scanning, copies that decode faster, and shards."""
