"""Methods whose networks are trained on the real data first, and then left as they are: RDED and SRe2L."""
