"""Features from videos."""
