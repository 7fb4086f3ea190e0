"""Results for other programs: rows, CSV, Parquet and a JSON summary."""
