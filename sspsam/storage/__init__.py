"""Files wherever fsspec finds them: local copies of remote ones, and the options of their stores."""
