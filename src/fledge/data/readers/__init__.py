"""Sources as rows: files by our own streaming readers, parquet and hub ids through datasets."""
