"""Drawing of the page's pictures."""
