"""Dataset preparation: scanning, resized copies and shard writing."""
