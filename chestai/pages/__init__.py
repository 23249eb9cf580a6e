"""Reports as HTML pages that are one file each and load nothing."""
