"""What makes a folder of images: fetched, rendered, packed."""
