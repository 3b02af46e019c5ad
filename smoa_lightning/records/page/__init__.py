"""Reports as documents and as HTML pages: the blocks, one skeleton, one stylesheet."""
