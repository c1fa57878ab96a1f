"""Where images and captions come from: folders, file lists, tars; COCO, Karpathy, JSONL, TSV, Parquet. See README.md."""
