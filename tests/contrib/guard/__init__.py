"""Programs with real Guard libraries in them, and what drives them."""
