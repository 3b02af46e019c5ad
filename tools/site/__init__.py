"""What `mkdocs build` needs: pages made from code and other files, drawn flow charts, and the check of links."""
