"""PCA with numpy alone: moments that merge, and projections."""
