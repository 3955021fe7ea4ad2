"""What people look at: one self-contained page for an output."""
