"""Dataset readers: each turns a layout on disk into a `manifest.VideoManifest`; `clips` turns that into samples."""
